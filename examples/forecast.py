"""Forecasts of real series, one step ahead, with intervals: beside seasonal-naive and exponential smoothing.

    pip install ".[gallery]"
    python examples/forecast.py

The series are those that statsmodels ships: CO2 over Mauna Loa by months, the output of electrical equipment by
months, and sunspots by years. The last part of each is held out. All forecasters see every month before they say the
next: the LSTM is a stream that is fed one month at a time, and keeps its state. It learns what the simplest rule
leaves over, "as a year ago plus the year's rise" (for sunspots "as last year"), and it is the mean of a few networks.
Intervals of 90 % are those that would have held on a part before the end, which also says when to stop learning.
"""

from __future__ import annotations

import argparse
import sys
import warnings

import numpy as np
import quadgate as qg
from command_line import at_least, picture
from quadgate import train

try:
    import matplotlib as mpl
    from statsmodels.datasets import co2, elec_equip, sunspots
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

UNITS, PIECE, WASH = 24, 60, 12  # steps of a piece to learn from, and those at its beginning that do not count


def series() -> dict[str, tuple[np.ndarray, int, int, bool]]:
    """Return by name: the numbers, the steps of a season, those held out, and if a season repeats itself."""
    monthly = co2.load_pandas().data["co2"].resample("MS").mean().interpolate()
    equipment = elec_equip.load_pandas().data.iloc[:, 0]
    yearly = sunspots.load_pandas().data["SUNACTIVITY"]
    return {
        "co2": (monthly.to_numpy(float), 12, 60, True),
        "elec_equip": (equipment.to_numpy(float), 12, 48, True),
        "sunspots": (yearly.to_numpy(float), 11, 60, False),
    }


def rule(z: np.ndarray, season: int, repeats: bool) -> np.ndarray:
    """Return the simplest forecast of each step from those before it; NaN where there are too few."""
    result = np.full(len(z), np.nan)
    if repeats:
        result[season + 1 :] = z[season:-1] + z[1:-season] - z[: -season - 1]
    else:
        result[season + 1 :] = z[season:-1]
    return result


def features(z: np.ndarray, season: int, repeats: bool, end: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return inputs (n, 5) and targets (n, 1) of the steps from 2 season + 2 on, and a target's unit.

    A row holds what is known a step before its target. The scale is that of the steps before `end`.
    """
    left, at = z - rule(z, season, repeats), np.arange(2 * season + 2, len(z))
    level = z - np.convolve(z, np.full(season, 1 / season))[: len(z)] if repeats else z
    parts = [left[at - 1], left[at - season], level[at - 1], z[at - 1] - z[at - 2], z[at - season] - z[at - 1]]
    x, known = np.stack(parts, axis=1), slice(0, end - at[0])
    x = (x - x[known].mean(axis=0)) / x[known].std(axis=0)
    unit = float(left[at][known].std())
    return x.astype(np.float32), (left[at] / unit).astype(np.float32)[:, None], unit


def learn(x: np.ndarray, y: np.ndarray, learnt: int, end: int, updates: int, seed: int) -> train.Sequential:
    """Return a model that has learnt from random pieces of the first `learnt` steps.

    It stopped learning where the steps between `learnt` and `end` were forecast best.
    """
    rng, rows = np.random.default_rng(seed), 16
    layers = [qg.LSTM(x.shape[1], UNITS, rng=rng), train.Dropout(0.3), train.Dense(UNITS, 1)]
    model, best = train.Sequential(layers, rng=rng), (np.inf, {})
    model.compile("huber", train.AdamW(3e-3, weight_decay=0.02, clip_norm=1.0))
    counts = np.broadcast_to(np.arange(PIECE) >= WASH, (rows, PIECE)).astype(np.float32)
    for k in range(updates):
        at = rng.integers(0, learnt - PIECE + 1, rows)[:, None] + np.arange(PIECE)
        model.train_on_batch(x[at], y[at], sample_weight=counts)
        if k % 10 == 9:
            error = float(np.abs(model.predict(x[None, :end])[0] - y[:end])[learnt:].mean())
            best = min(best, (error, dict(model.params)), key=lambda pair: pair[0])
    model.load_params(best[1])
    return model


def smoothing(z: np.ndarray, season: int, repeats: bool, end: int) -> np.ndarray:
    """Return the forecasts of exponential smoothing, fitted to the steps before `end`."""
    form = {"error": "add", "trend": "add" if repeats else None, "seasonal": "add", "seasonal_periods": season}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = ETSModel(z[:end], **form).fit(disp=False, maxiter=200)
        return np.asarray(ETSModel(z, **form).smooth(fitted.params).fittedvalues)


def main() -> None:
    """Forecast the held-out end of each series."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--updates", type=at_least(10), default=300, help="steps of training of each network (%(default)s)"
    )
    parser.add_argument("--networks", type=at_least(1), default=5, help="for each series (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: one network, few steps")
    parser.add_argument("--plot", type=picture, help="write a picture of the held-out steps to this file")
    args = parser.parse_args()
    if args.quick:
        args.updates, args.networks = 100, 1
    every, drawn, parts = series(), [], []
    bar = tqdm(total=len(every) * args.networks, unit="network")
    for name, (z, season, test, repeats) in every.items():
        end = len(z) - test
        learnt = end - test
        x, y, unit = features(z, season, repeats, learnt)
        begin = len(z) - len(x)
        outputs = np.zeros(len(x))
        for seed in range(args.networks):
            stream = learn(x, y, learnt - begin, end - begin, args.updates, seed).stream()
            outputs += [stream.step(row[None])[0, 0] for row in x]
            bar.update()
        base = rule(z, season, repeats)
        found = base + np.concatenate([np.full(begin, np.nan), outputs]) / args.networks * unit
        width = np.quantile(np.abs(z - found)[learnt:end], 0.9)
        naive = np.concatenate([np.full(season, np.nan), z[:-season]])
        errors = {
            k: float(np.abs(z - f)[end:].mean())
            for k, f in (
                ("lstm", found),
                ("naive", naive),
                ("smoothing", smoothing(z, season, repeats, end)),
                ("rule", base),
            )
        }
        inside = float((np.abs(z - found)[end:] <= width).mean())
        drawn.append((name, z, found, width, end, season))
        bar.write(
            f"{name:11} mean absolute error: LSTM {errors['lstm']:7.3f}, seasonal-naive {errors['naive']:7.3f}, "
            f"exponential smoothing {errors['smoothing']:7.3f}, the rule {errors['rule']:7.3f}; "
            f"{inside:.0%} inside the interval"
        )
        parts += [
            f"{name}={errors['lstm']:.4f} {name}_naive={errors['naive']:.4f} {name}_smoothing={errors['smoothing']:.4f}"
        ]
        parts += [f"{name}_inside={inside:.3f}"]
    bar.close()
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(len(drawn), 1, figsize=(9, 7), layout="constrained")
        for at, (name, z, found, width, end, season) in zip(axes, drawn, strict=True):
            t = np.arange(end - 2 * season, len(z))
            at.plot(t, z[t], color="black", lw=1, label="series")
            at.plot(t[2 * season :], found[end:], color="C1", label="LSTM, one step ahead")
            at.fill_between(
                t[2 * season :], found[end:] - width, found[end:] + width, color="C1", alpha=0.25, label="90 %"
            )
            at.set_title(name)
        axes[0].legend(loc="upper left")
        plt.savefig(args.plot, dpi=120)
    print("RESULT", *parts)


if __name__ == "__main__":
    main()
