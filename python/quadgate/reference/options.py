"""The constructor's options, and the masks that belong to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import cell
from .activations import Activation

Array = NDArray[Any]

# Options of the constructor that have no effect here, or that the parameters imply.
IGNORED = {"bias", "batch_first", "proj_size", "peephole", "initialization", "forget_bias", "dtype", "rng"}


class Options(NamedTuple):
    """Options of a network, by the constructor's names."""

    cell: cell.Options
    num_layers: int = 1
    bidirectional: bool = False
    reverse: bool = False
    merge: str = "concat"
    shortcut: str | None = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_drop: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)


def parse(options: Mapping[str, Any], num_layers: int, bidirectional: bool) -> Options:
    """Return the constructor's options as `Options`; those in `IGNORED` are dropped."""
    rest = {name: value for name, value in options.items() if name not in IGNORED}
    own: dict[str, Any] = {"num_layers": num_layers, "bidirectional": bidirectional}
    own |= {name: rest.pop(name) for name in Options._fields if name in rest and name != "cell"}
    nonlinearity = rest.pop("nonlinearity", None)
    if nonlinearity is not None:
        rest |= {"elman": True, "activations": (nonlinearity, "tanh", "tanh")}
    if "activations" in rest:
        rest["activations"] = tuple(Activation.read(each) for each in rest["activations"])
    unknown = rest.keys() - set(cell.Options._fields)
    if unknown:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    return Options(cell.Options(**rest), **own)


def layers(opts: Options) -> Iterator[tuple[int, list[str]]]:
    """Yield each layer's index and the suffixes of its parameters' names, one for each direction."""
    for k in range(opts.num_layers):
        yield k, [f"_l{k}", f"_l{k}_reverse"] if opts.bidirectional else [f"_l{k}"]


def check_params(opts: Options, params: Mapping[str, ArrayLike]) -> None:
    """Raise TypeError for no mapping, and ValueError if a layer or direction has no weights in it."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params must be a mapping from names to arrays, got {type(params).__name__}")
    suffixes = [suffix for _, each in layers(opts) for suffix in each]
    missing = [n + suffix for suffix in suffixes for n in ("weight_ih", "weight_hh") if n + suffix not in params]
    if missing:
        raise ValueError(f"params must have {', '.join(missing)}, got {', '.join(map(str, params)) or 'nothing'}")


def check_masks(opts: Options, masks: Mapping[str, ArrayLike] | None) -> dict[str, Array] | None:
    """Return the masks as arrays of bool, None for inference.

    Raises
    ------
    ValueError
        If the names are not exactly those of the options whose probability is above 0.
    """
    if masks is None:
        return None
    chances = (opts.weight_drop, opts.recurrent_dropout, *opts.zoneout)
    kinds = [
        k for k, p in zip(("weight_drop", "recurrent_dropout", "zoneout_h", "zoneout_c"), chances, strict=True) if p
    ]
    names = {kind + suffix for kind in kinds for _, suffixes in layers(opts) for suffix in suffixes}
    if opts.dropout:
        names |= {f"dropout_l{k}" for k in range(opts.num_layers - 1)}
    if names != masks.keys():
        raise ValueError(f"masks must be {sorted(names)}, got {sorted(masks)}")
    return {name: np.asarray(value, bool) for name, value in masks.items()}
