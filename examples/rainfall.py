"""Rain to river: one network for many catchments, as hydrologists use it (Kratzert et al., 2019).

    pip install ".[gallery]"
    python examples/rainfall.py

The program makes its rivers. Each catchment is a bucket model with snow, soil, a fast and a slow store; the sizes of
the stores, their lags and the climate are its static attributes. One LSTM reads the day's weather beside the
attributes and says the day's runoff, for catchments that it has never seen. The measure is the Nash-Sutcliffe
efficiency (1 is perfect, 0 no better than the mean). The baseline is linear: a regression on the weather of the last
30 days and the attributes.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import quadgate as qg
from command_line import at_least, picture
from quadgate import train

try:
    import matplotlib as mpl
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

ATTRIBUTES = ("soil", "fast", "slow", "share", "wet", "warm", "season")
WARM_UP = 90  # days at the beginning of a piece that fill the stores and do not count


def catchments(count: int, years: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weather (count, days, 3: rain and snow in mm, temperature, season), runoff in mm, and attributes.

    All catchments go through the days together.
    """
    days = 365 * years
    soil, fast, slow = rng.uniform(40, 250, count), rng.uniform(1.2, 6, count), rng.uniform(20, 120, count)
    share, wet, warm, season = (
        rng.uniform(0.2, 0.8, count),
        rng.uniform(4, 11, count),
        rng.uniform(2, 14, count),
        rng.uniform(4, 14, count),
    )
    year = 2 * np.pi * np.arange(days) / 365
    temperature = warm[:, None] - season[:, None] * np.cos(year) + smooth(rng.normal(0, 3.5, (count, days)))
    raining = smooth(rng.normal(size=(count, days))) > 0.35
    rain = raining * rng.gamma(0.7, wet[:, None], (count, days))
    runoff, snow, water, quick, deep = np.zeros((count, days)), *np.zeros((4, count))
    water += soil / 2
    for day in range(days):
        t, falls = temperature[:, day], rain[:, day]
        melt = np.minimum(snow, np.maximum(t, 0) * 3)
        snow = snow + np.where(t < 0, falls, 0) - melt
        comes = np.where(t < 0, 0, falls) + melt
        runs = comes * np.minimum(water / soil, 1) ** 2  # wet soil lets more pass
        water = np.clip(water + comes - runs - np.maximum(t, 0) * 0.22 * np.minimum(water / soil, 1), 0, None)
        spill = np.maximum(water - soil, 0)
        water, runs = water - spill, runs + spill
        quick, deep = quick + share * runs, deep + (1 - share) * runs
        runoff[:, day] = quick / fast + deep / slow
        quick, deep = quick - quick / fast, deep - deep / slow
    weather = np.stack([rain, temperature, np.broadcast_to(np.cos(year), rain.shape)], axis=-1)
    return weather, runoff, np.stack([soil, fast, slow, share, wet, warm, season], axis=-1)


def smooth(noise: np.ndarray, keep: float = 0.7) -> np.ndarray:
    """Return noise (count, days) in which a day resembles the one before."""
    for day in range(1, noise.shape[1]):
        noise[:, day] = keep * noise[:, day - 1] + np.sqrt(1 - keep**2) * noise[:, day]
    return noise


def efficiency(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the Nash-Sutcliffe efficiency of each catchment (count,)."""
    return 1 - np.square(found - true).sum(axis=1) / np.square(true - true.mean(axis=1, keepdims=True)).sum(axis=1)


def lagged(x: np.ndarray, weather: int) -> np.ndarray:
    """Return features (count, days - WARM_UP, ...) of the baseline: 30 days of weather, the attributes, and 1."""
    days = [x[:, WARM_UP - lag : x.shape[1] - lag, :weather] for lag in range(30)]
    return np.concatenate([*days, x[:, WARM_UP:, weather:], np.ones((*x[:, WARM_UP:].shape[:2], 1))], axis=-1)


def main() -> None:
    """Learn from some catchments, say the runoff of others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--updates", type=at_least(1), default=1500, help="steps of training (%(default)s)")
    parser.add_argument("--catchments", type=at_least(2), default=150, help="to learn from (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: few catchments, few steps")
    parser.add_argument("--plot", type=picture, help="write a picture of a river that it has not seen to this file")
    args = parser.parse_args()
    years, held_out = 4, 40
    if args.quick:
        args.updates, args.catchments, years, held_out = 150, 40, 2, 10
    weather, runoff, attributes = catchments(args.catchments + held_out, years, np.random.default_rng(0))
    static = np.broadcast_to(attributes[:, None], (*weather.shape[:2], len(ATTRIBUTES)))
    x = np.concatenate([weather, static], axis=-1)
    known = slice(0, args.catchments)
    x = ((x - x[known].mean(axis=(0, 1))) / x[known].std(axis=(0, 1))).astype(np.float32)
    centre, width = runoff[known].mean(), runoff[known].std()
    y = ((runoff - centre) / width).astype(np.float32)[..., None]
    test_x, test = x[args.catchments :], runoff[args.catchments :, WARM_UP:]

    features = lagged(x[known], 3).reshape(-1, 98)
    answer = np.linalg.lstsq(features.T @ features, features.T @ y[known, WARM_UP:, 0].ravel(), rcond=None)[0]
    plain = efficiency(lagged(test_x, 3) @ answer * width + centre, test)
    print(f"{args.catchments} catchments of {years} years to learn from, {held_out} held out")
    print(f"linear regression: median efficiency {np.median(plain):.3f} on held-out catchments")

    model = train.Sequential(
        [qg.LSTM(x.shape[-1], 64, forget_bias=3.0, rng=0), train.Dropout(0.1), train.Dense(64, 1)], rng=0
    )
    steps, batch, rng = args.updates, 32, np.random.default_rng(1)
    model.compile("mse", train.Adam(train.WarmupCosine(6e-3, steps // 20, steps, floor=1e-4), clip_norm=1.0))
    counts = np.broadcast_to(np.arange(365 + WARM_UP) >= WARM_UP, (batch, 365 + WARM_UP)).astype(np.float32)
    bar = tqdm(range(steps), unit="step")
    for _ in bar:
        row, day = rng.integers(0, args.catchments, batch)[:, None], rng.integers(0, 365 * (years - 1) - WARM_UP, batch)
        span = day[:, None] + np.arange(365 + WARM_UP)
        bar.set_postfix_str(f"loss {model.train_on_batch(x[row, span], y[row, span], sample_weight=counts):.4f}")
    found = model.predict(test_x)[:, WARM_UP:, 0] * width + centre
    scores = efficiency(found, test)
    print(
        f"one LSTM: median efficiency {np.median(scores):.3f}, worst {scores.min():.3f}; "
        f"better in {np.mean(scores > plain):.0%}"
    )
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        _, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=(2, 1), layout="constrained")
        one = int(np.argsort(scores)[len(scores) // 2])
        left.plot(test[one, :365], label="river")
        left.plot(found[one, :365], label="LSTM", ls="--")
        left.set(
            xlabel="day",
            ylabel="runoff in mm a day",
            title=f"A catchment it has not seen, efficiency {scores[one]:.2f}",
        )
        left.legend()
        right.plot(np.sort(scores), np.linspace(0, 1, len(scores)), label="LSTM")
        right.plot(np.sort(plain), np.linspace(0, 1, len(plain)), label="linear regression")
        right.set(xlabel="efficiency", ylabel="share of catchments", title=f"{held_out} held-out catchments")
        right.legend()
        plt.savefig(args.plot, dpi=120)
    print(f"RESULT nse={np.median(scores):.4f} worst={scores.min():.4f} baseline={np.median(plain):.4f}")


if __name__ == "__main__":
    main()
