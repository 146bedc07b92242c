"""Control what is seen in part: CartPole without velocities, learnt by evolution strategies with an LSTM policy.

    pip install ".[gallery]"
    python examples/control.py                 # half a minute of learning, and the same with a cell in NumPy

A policy sees where the cart is and how the pole leans, but not how fast they move, so it must remember. Evolution
strategies (Salimans et al., 2017) need no gradients: they try pairs of opposite changes of all parameters and move
towards those that kept the pole up. Each of the policies runs in a batch of environments, and an environment whose
pole has fallen starts again at once, as does its row of the stream, by `Stream.reset`. The baseline is the same search
with the cell written in NumPy, for all policies at once; both loop over time in Python. Held out are 100 new episodes,
in gymnasium's CartPole-v1 if that is installed, where 500 is the best return.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time

import numpy as np
import quadgate as qg
from command_line import at_least, picture

try:
    import matplotlib as mpl
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

SEEN, UNITS, STEPS = 2, 16, 500
SCALE = np.array([1.0, 8.0], np.float32)  # position in m and angle in radians to numbers around 1


class CartPole:
    """Poles on carts, with the equations and numbers of CartPole-v1 (Barto, Sutton and Anderson, 1983)."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.rng = rng
        self.state = rng.uniform(-0.05, 0.05, (4, *shape))  # position, speed, angle, speed of the angle

    def step(self, right: np.ndarray) -> np.ndarray:
        """Push for 0.02 s; return the environments whose pole fell, which have started again."""
        x, v, angle, spin = self.state
        sine, cosine = np.sin(angle), np.cos(angle)
        push = (np.where(right, 10.0, -10.0) + 0.05 * spin**2 * sine) / 1.1
        turn = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        self.state = np.stack(
            [x + 0.02 * v, v + 0.02 * (push - 0.05 * turn * cosine / 1.1), angle + 0.02 * spin, spin + 0.02 * turn]
        )
        fallen = (np.abs(self.state[0]) > 2.4) | (np.abs(self.state[2]) > 12 * np.pi / 180)
        self.state[:, fallen] = self.rng.uniform(-0.05, 0.05, (4, int(fallen.sum())))
        return fallen

    def seen(self) -> np.ndarray:
        """Return what a policy sees, (..., 2): no velocities."""
        return np.stack([self.state[0], self.state[2]], axis=-1).astype(np.float32) * SCALE


SHAPES = {name: value.shape for name, value in qg.LSTM(SEEN, UNITS).params.items()}
SIZES = [int(np.prod(shape)) for shape in SHAPES.values()]
COUNT = sum(SIZES) + UNITS  # with the row that makes a push of h


def unflattened(vector: np.ndarray) -> dict[str, np.ndarray]:
    """Return the parameters of an LSTM by name from a vector of all numbers of a policy."""
    pieces = np.split(vector, np.cumsum(SIZES))
    return {name: piece.reshape(shape) for (name, shape), piece in zip(SHAPES.items(), pieces[:-1], strict=True)}


class Quadgate:
    """N policies, each a stream over E environments."""

    def __init__(self, policies: int, environments: int) -> None:
        self.nets = [qg.LSTM(SEEN, UNITS) for _ in range(policies)]
        self.streams = [net.stream(environments) for net in self.nets]
        self.h = np.zeros((policies, environments, UNITS), np.float32)

    def start(self, vectors: np.ndarray) -> None:
        """Take over the parameters of all policies (N, COUNT), and zero states."""
        self.head = vectors[:, -UNITS:, None]
        for net, stream, vector in zip(self.nets, self.streams, vectors, strict=True):
            with net.writable() as params:
                params.update(unflattened(vector))
            stream.reset()

    def step(self, x: np.ndarray) -> np.ndarray:
        """Return for each policy and environment if the push goes right."""
        for stream, rows, h in zip(self.streams, x, self.h, strict=True):
            stream.step(rows, h)
        return (self.h @ self.head)[..., 0] > 0

    def reset(self, fallen: np.ndarray) -> None:
        """Start rows again."""
        for k in np.flatnonzero(fallen.any(axis=1)):
            self.streams[k].reset(fallen[k])


class Numpy:
    """The same with the cell in NumPy, one product for all policies."""

    def __init__(self, policies: int, environments: int) -> None:
        self.shape = (policies, environments, UNITS)

    def start(self, vectors: np.ndarray) -> None:
        """As in Quadgate."""
        params = [unflattened(vector) for vector in vectors]
        self.head = vectors[:, -UNITS:, None]
        self.weight = np.stack([np.hstack([p["weight_ih_l0"], p["weight_hh_l0"]]).T for p in params])
        self.bias = np.stack([p["bias_l0"] for p in params])[:, None]
        self.h, self.c = np.zeros((2, *self.shape), np.float32)

    def step(self, x: np.ndarray) -> np.ndarray:
        """As in Quadgate."""
        a = np.concatenate([x, self.h], axis=-1) @ self.weight + self.bias
        i, f, o = (1 / (1 + np.exp(-a[..., k * UNITS : (k + 1) * UNITS])) for k in (0, 1, 3))
        self.c = f * self.c + i * np.tanh(a[..., 2 * UNITS : 3 * UNITS])
        self.h = o * np.tanh(self.c)
        return (self.h @ self.head)[..., 0] > 0

    def reset(self, fallen: np.ndarray) -> None:
        """As in Quadgate."""
        self.h[fallen] = self.c[fallen] = 0


def returns(policies: Quadgate | Numpy, vectors: np.ndarray, environments: int, rng: np.random.Generator) -> np.ndarray:
    """Return the mean steps between falls of each policy (N,), over STEPS steps of each environment."""
    world = CartPole((len(vectors), environments), rng)
    policies.start(vectors)
    falls = np.zeros(len(vectors))
    for _ in range(STEPS):
        fallen = world.step(policies.step(world.seen()))
        if fallen.any():
            falls += fallen.sum(axis=1)
            policies.reset(fallen)
    return STEPS * environments / (falls + environments)


def learn(kind: type, args: argparse.Namespace) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    """Search for `args.seconds`; return the parameters, (seconds, mean return) over time, and steps a second."""
    rng = np.random.default_rng(args.seed)
    policies = kind(args.policies, args.environments)
    centre = np.concatenate([qg.LSTM(SEEN, UNITS, rng=args.seed).params.flat, np.zeros(UNITS, np.float32)])
    velocity, curve, count, begin = np.zeros_like(centre), [], 0, time.perf_counter()
    with tqdm(
        total=round(args.seconds), unit="s", desc=kind.__name__, bar_format="{l_bar}{bar}| {n:.0f}/{total} s {postfix}"
    ) as bar:
        while (spent := time.perf_counter() - begin) < args.seconds:
            half = rng.standard_normal((args.policies // 2, COUNT), np.float32)
            noise = np.concatenate([half, -half])
            found = returns(policies, centre + args.sigma * noise, args.environments, rng)
            count += STEPS * args.policies * args.environments
            ranks = found.argsort().argsort() / (len(found) - 1) - 0.5  # a rank: one lucky policy does not decide
            velocity = 0.8 * velocity + (ranks @ noise / (len(found) * args.sigma)).astype(np.float32)
            centre = centre + args.rate * velocity
            curve.append((time.perf_counter() - begin, float(found.mean())))
            bar.n = min(bar.total, spent)
            bar.set_postfix_str(f"mean return {found.mean():.0f}")
    return centre, curve, count / (time.perf_counter() - begin)


def held_out(centre: np.ndarray, episodes: int) -> float:
    """Return the mean return of a policy over new episodes."""
    if not importlib.util.find_spec("gymnasium"):
        return float(returns(Quadgate(1, episodes), centre[None], episodes, np.random.default_rng(10**6))[0])
    import gymnasium

    policy, total, world = Quadgate(1, 1), 0, gymnasium.make("CartPole-v1")
    for seed in range(episodes):
        policy.start(centre[None])
        seen, over = world.reset(seed=10**6 + seed)[0], False
        while not over:
            push = policy.step(np.float32(seen[[0, 2]] * SCALE)[None, None])[0, 0]
            seen, reward, fallen, late, _ = world.step(int(push))
            total, over = total + reward, fallen or late
    return total / episodes


def main() -> None:
    """Learn with both cells for the same time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=at_least(0.001), default=30.0, help="time to learn, for each (%(default)s)")
    parser.add_argument("--policies", type=at_least(2), default=32, help="(%(default)s)")
    parser.add_argument("--environments", type=at_least(1), default=8, help="of each policy (%(default)s)")
    parser.add_argument(
        "--sigma",
        type=at_least(0.001),
        default=0.3,
        help="size of the changes that are tried (%(default)s)",
    )
    parser.add_argument("--rate", type=at_least(0.0), default=0.3, help="(%(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--quick", action="store_true", help="seconds")
    parser.add_argument("--plot", type=picture, help="write a picture of the returns over time to this file")
    args = parser.parse_args()
    if args.policies % 2:
        parser.error(f"argument --policies: they are pairs, so it must be even, not {args.policies}")
    if args.quick:
        args.seconds = 3.0
    parts, curves = [], {}
    for kind, prefix in ((Quadgate, ""), (Numpy, "numpy_")):
        centre, curves[kind.__name__], rate = learn(kind, args)
        score = held_out(centre, 10 if args.quick else 100)
        print(
            f"{kind.__name__}: return {score:.1f} of 500 held out, {rate:,.0f} steps a second for {args.seconds:.0f} s"
        )
        parts.append(f"{prefix}return={score:.2f} {prefix}steps_per_s={rate:.0f}")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        for name, curve in curves.items():
            plt.plot(*zip(*curve, strict=True), label=f"cell in {name}")
        plt.gca().set(xlabel="seconds", ylabel="mean return", title="CartPole without velocities, evolution strategies")
        plt.legend()
        plt.savefig(args.plot, dpi=120)
    print("RESULT", *parts)


if __name__ == "__main__":
    main()
