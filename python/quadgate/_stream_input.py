"""Arguments of a stream's calls, checked before its state moves on, and the array that they fill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._options import Options

    Array = NDArray[Any]


def step(x: object, batch_size: int, features: int) -> Array:
    """Return x of one step as an array (B, I), or (I,) if B is 1."""
    x_ = _check.array(x, "x")
    if x_.shape != (batch_size, features) and (batch_size != 1 or x_.shape != (features,)):
        alone = f" or ({features},)" if batch_size == 1 else ""
        raise ValueError(f"x must have shape ({batch_size}, {features}){alone}, got {x_.shape}")
    return x_


def chunk(x: object, batch_size: int, features: int, time_major: bool) -> Array:
    """Return x of many steps as an array (T, B, I) or, unless `time_major`, (B, T, I); (T, I) if B is 1."""
    x_ = _check.array(x, "x")
    rows = x_.shape[1 if time_major else 0] if x_.ndim == 3 else 1
    if x_.ndim not in (2, 3) or x_.shape[-1] != features or rows != batch_size:
        order = f"T, {batch_size}" if time_major else f"{batch_size}, T"
        alone = f" or (T, {features})" if batch_size == 1 else ""
        raise ValueError(f"x must have shape ({order}, {features}){alone}, got {x_.shape}")
    return x_


def target(out: object, o: Options, x: Array, resets: Array | None = None, mask: Array | None = None) -> Array | None:
    """Return `out` if it can take y of x and shares no memory with what the call reads."""
    if out is None:
        return None
    target = _check.buffer(out, "out", (*x.shape[:-1], o.outputs), o.dtype)
    _check.apart(target, "out", {"x": x, "resets": resets, "mask": mask})
    return target


def into_out(y: Array | None, target: Array | None, out: Array | None) -> Array:
    """Return y, or `out` with y in it; `target` is `out` as an array."""
    y = _check.computed(y)
    if target is None or out is None:
        return y
    target[...] = y
    return out


def repeats_last(padding_output: object, o: Options) -> bool:
    """Return True for "last"; raise ValueError if the state has no y to repeat."""
    if _check.padding(padding_output) == "zero":
        return False
    if not o.y_is_h:
        raise ValueError(
            f"a stream cannot repeat the last y in a network with a {o.shortcut} shortcut: "
            "its state has no y; padding_output must be 'zero'"
        )
    return True


def state(value: object, name: str, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Array:
    """Return one array of a state, of shape (L, B, columns); (L, columns) will do if B is 1."""
    if value is None:
        raise TypeError(f"{name} must be an array of shape {shape}, got None")
    array = _check.array(value, name)
    if shape[1] == 1 and array.shape == (shape[0], shape[2]):
        array = array[:, None]
    return _check.floats(array, name, shape, dtype)
