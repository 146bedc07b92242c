"""The options of a network: each alone, and random combinations of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from support.cases import Case, Options

Pick = Callable[[Sequence[Any]], Any]

ACTIVATIONS: list[Any] = ["sigmoid", "tanh", "relu", "hard_sigmoid", "affine", "leaky_relu", "thresholded_relu"]
ACTIVATIONS += ["scaled_tanh", "elu", "softsign", "softplus", ("hard_sigmoid", 0.4, 0.3), ("affine", 0.7, -0.2)]
ACTIVATIONS += [("leaky_relu", 0.3), ("thresholded_relu", 0.1), ("scaled_tanh", 1.7, 0.6), ("elu", 0.5)]
DEFAULT_ACTIVATIONS = ("sigmoid", "tanh", "tanh")

# Each option alone, as little around it as it makes sense with; P stands for a projection size.
SINGLE: dict[str, Options] = {
    "plain": {},
    "peephole": {"peephole": True},
    "proj_size": {"proj_size": "P"},
    "coupled": {"coupled": True},
    "cell_clip": {"cell_clip": 0.4},
    "proj_clip": {"proj_clip": 0.1, "proj_size": "P"},
    "gate_clip": {"gate_clip": 0.6},
    "layer_norm_output": {"layer_norm": "output"},
    "layer_norm_cell": {"layer_norm": "cell"},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "weight_drop": {"weight_drop": 0.3},
    "zoneout_h": {"zoneout": (0.3, 0.0)},
    "zoneout_c": {"zoneout": (0.0, 0.4)},
    "zoneout": {"zoneout": (0.2, 0.5)},
    "dropout": {"dropout": 0.3, "num_layers": 3},
    "reverse": {"reverse": True},
    "merge_sum": {"merge": "sum", "bidirectional": True},
    "merge_mul": {"merge": "mul", "bidirectional": True, "num_layers": 2},
    "merge_mean": {"merge": "mean", "bidirectional": True, "num_layers": 2},
    "residual": {"shortcut": "residual", "num_layers": 3},
    "highway": {"shortcut": "highway", "num_layers": 3},
    "dense": {"shortcut": "dense", "num_layers": 3},
    "rnn_tanh": {"nonlinearity": "tanh"},
    "rnn_relu": {"nonlinearity": "relu"},
}
for _place, _name in enumerate(("gate", "cell", "output")):
    for _kind in ACTIVATIONS:
        _chosen = (*DEFAULT_ACTIVATIONS[:_place], _kind, *DEFAULT_ACTIVATIONS[_place + 1 :])
        if _chosen != DEFAULT_ACTIVATIONS:
            _label = _kind if isinstance(_kind, str) else "_".join(map(str, _kind))
            SINGLE[f"{_name}_{_label}"] = {"activations": _chosen}


def single(name: str, hidden: int, proj_size: int | None = None, **call: Any) -> Case:
    """One option alone."""
    options = dict(SINGLE[name])
    if options.get("proj_size"):
        options["proj_size"] = proj_size or max(1, hidden // 2)
    if options.get("layer_norm"):
        options["layer_norm_eps"] = norm_eps(hidden)
    return Case(**{"steps": 4, "batch": 3, "inputs": 5, "hidden": hidden, "options": options, **call})


def norm_eps(*columns: int) -> float:
    """Two units normalised, or a column's multiples, are the same whatever they were: the slope is all cancellation.

    Not so with a large eps.
    """
    return 0.1 if min(columns) < 4 else 1e-5


def random_options(pick: Pick, hidden: int, inputs: int = 4) -> Options:
    """Any combination of options that makes sense; `pick` chooses from a sequence, whose first is the simplest."""
    rare, often = (False, False, False, True), (False, True)
    options: Options = {"num_layers": pick((1, 1, 2, 3)), "bias": not pick(rare)}
    way = pick(("forward", "forward", "reverse", "both"))
    if way != "forward":
        options |= {"reverse": True} if way == "reverse" else {"bidirectional": True}
        options |= {"merge": pick(("concat", "sum", "mul", "mean"))} if way == "both" else {}
    if options["num_layers"] > 1:
        options |= {"shortcut": pick((None, "residual", "highway", "dense")), "dropout": pick((0.0, 0.0, 0.3))}
    options |= {"recurrent_dropout": 0.4} if pick(rare) else {}
    options |= {"weight_drop": 0.3} if pick(rare) else {}
    if pick((False, False, False, False, False, True)):
        return options | {"nonlinearity": pick(("tanh", "relu"))}
    if pick(rare) and hidden > 1:
        options |= {"proj_size": pick([p for p in (1, 2, 3, 5, 8, 9, 16, 17, 31) if p < hidden])}
        options |= {"proj_clip": pick((None, 0.1))}
    for name in ("peephole", "coupled"):
        options |= {name: True} if pick(rare) else {}
    options |= {"cell_clip": 0.4} if pick(rare) else {}
    options |= {"gate_clip": 0.6} if pick(rare) else {}
    if pick(rare):
        options |= {"activations": tuple(pick([one, *ACTIVATIONS]) for one in DEFAULT_ACTIVATIONS)}
    if pick(rare):
        options |= {"layer_norm": pick(("output", "cell")), "layer_norm_eps": 0.0}
        options["layer_norm_eps"] = norm_eps(hidden, inputs, options.get("proj_size", hidden))
    if pick(rare):
        options |= {"zoneout": (0.3 * pick(often), 0.4 * pick(often))}
    return options


def seeded(seed: int) -> Pick:
    rng = np.random.default_rng(seed)
    return lambda sequence: sequence[int(rng.integers(len(sequence)))]


# Activations differ in a function of single numbers only: two of them stand for the rest.
NAMES = [n for n in SINGLE if "activations" not in SINGLE[n]] + ["gate_hard_sigmoid", "output_relu"]
COMBINED = [f"random_{seed}" for seed in range(12)]


def variant(name: str, **call: Any) -> Case:
    """One of NAMES or COMBINED, of some size that `call` may change."""
    if not name.startswith("random"):
        return single(name, **{"hidden": 18, **call})
    seed = int(name[7:])
    hidden = call.pop("hidden", 18)
    shape = {"steps": 5, "batch": 3, "inputs": 6, "seed": seed, "dtype": ("float32", "float64")[seed % 2]}
    return Case(**{**shape, "hidden": hidden, "options": random_options(seeded(seed), hidden), **call})
