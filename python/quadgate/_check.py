"""Argument validation and conversion.

Nothing here runs if the arguments are plain already: the core checks that itself, and returns None for all others.
A plain array is exactly a `numpy.ndarray` of the network's own type in native byte order, aligned and C-contiguous.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Result = TypeVar("Result")
ZERO: Final = "zero"  # the default of padding_output, compared by identity ahead of every call
FLOATS = "real numbers (float or integer)"
BOOLS = "bools, or integers 0 and 1"
WHOLE = "integers, or floats that are whole"


def size(value: SupportsIndex, name: str, *, zero: bool = False) -> int:
    """Return a positive int, or 0 where that is allowed."""
    what = "0 or a positive int" if zero else "a positive int"
    result = _index(value, name, what)
    if result.bit_length() > 63:
        raise ValueError(f"{name} must be {what}, got an int of {result.bit_length()} bits, too large by far")
    if result < (0 if zero else 1):
        raise ValueError(f"{name} must be {what}, got {result}")
    return result


def _index(value: Any, name: str, what: str) -> int:
    """Return an int from anything that stands for one, bools excepted."""
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)
    except MemoryError:
        raise
    except Exception as error:  # a foreign __index__ may raise anything
        raise TypeError(f"{name} must be {what}, got {shown(value)}") from error
    raise TypeError(f"{name} must be {what}, got {shown(value)}")


def flag(value: object, name: str) -> bool:
    """Return a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def text(value: object, name: str) -> None:
    """Raise TypeError if this is no str."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {shown(value)}")


def path(value: Any, name: str = "path") -> str:
    """Return the path of a file as a str."""
    try:
        result = os.fspath(value)
    except TypeError:
        result = None
    if not isinstance(result, str):  # bytes are no path to pathlib
        raise TypeError(f"{name} must be a str, an os.PathLike or a binary file, got {shown(value)}")
    return result


def items(value: Any, name: str, what: str) -> list[Any]:
    """Return the items of a list or of anything else that can be iterated; `what` describes them in errors."""
    if isinstance(value, memoryview):  # which cannot be iterated with several axes
        value = np.asarray(value)
    try:
        each = iter(value)
    except TypeError:  # of an array without axes, too
        raise TypeError(f"{name} must be {what}, got {shown(value)}") from None
    return list(each)


def number(value: object, name: str, what: str = "a finite number") -> float:
    """Return a finite float; `what` describes the expected number in errors."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # NumPy's scalars are Real too, its bools not
        raise TypeError(f"{name} must be {what}, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:  # an int that is too long
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} must be {what}, got {result}")
    return result


def positive(value: object, name: str) -> float:
    """Return a finite float above 0."""
    result = number(value, name, "a positive number")
    if result <= 0:
        raise ValueError(f"{name} must be a positive number, got {result}")
    return result


def probability(value: object, name: str) -> float:
    """Return a float between 0 and 1, both included."""
    what = "a probability, from 0 to 1"
    result = number(value, name, what)
    if not 0 <= result <= 1:
        raise ValueError(f"{name} must be {what}, got {result}")
    return result + 0.0  # 0.0, not -0.0


def choice(value: object, name: str, choices: tuple[str | None, ...]) -> Any:
    """Return a value that is one of `choices`."""
    if value is None or isinstance(value, str):
        if value in choices:
            return choices[choices.index(value)]  # not a subclass of str, which pickles would hold
        error: type[Exception] = ValueError
    else:
        error = TypeError
    meant = did_you_mean(value, [c for c in choices if c]) if isinstance(value, str) else ""
    raise error(f"{name} must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}, got {shown(value)}{meant}")


def padding(value: object) -> str:
    """Return a ``padding_output``."""
    result: str = choice(value, "padding_output", (ZERO, "last"))
    return result


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest of the known names, or nothing if none is near."""
    from difflib import get_close_matches  # needed for errors only

    near = get_close_matches(name, list(known), n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def generator(value: int | np.random.Generator | None) -> np.random.Generator:
    """Return a generator: the given one, or a new one from a seed or, for None, from the system's entropy."""
    if isinstance(value, np.random.Generator):
        return value
    if value is None:
        return np.random.default_rng()
    seed = _index(value, "rng", "None, an int or a numpy.random.Generator")
    if seed < 0:
        raise ValueError(f"rng must not be negative, got {shown(seed)}")
    return np.random.default_rng(seed)


def float_type(value: Any, name: str = "dtype") -> np.dtype[Any]:
    """Return float32 or float64 in native byte order."""
    known: list[np.dtype[Any]] = [np.dtype(np.float32), np.dtype(np.float64)]
    if value is None:  # which NumPy takes for float64
        raise TypeError(f"{name} must be float32 or float64, got None")
    try:
        dtype = np.dtype(value)
    except MemoryError:
        raise
    except Exception:  # OverflowError or ValueError, too
        got = repr(value) if type(value).__name__.lower() == "dtype" else shown(value)  # another library's type
        raise TypeError(f"{name} must be float32 or float64, got {got}") from None
    if dtype not in known:
        raise ValueError(f"{name} must be float32 or float64, got {dtype}")
    return known[known.index(dtype)]


def array(value: object, name: str, what: str = FLOATS, kinds: str = "fiu") -> Array:
    """Return a base-class array of one of the kinds of types, sharing the memory of other arrays.

    bfloat16, which NumPy itself does not know, comes back as float32 unless `kinds` has V.
    """
    result = value if type(value) is np.ndarray else _foreign(value, name)
    kind = result.dtype.kind
    if kind == "V" and "f" in kinds and "V" not in kinds and result.dtype.name == "bfloat16":
        return result.astype(np.float32)
    if kind not in kinds and (result.size or kind != "f"):  # [] is float64 to NumPy
        hint = ""
        if kind == "O" and hasattr(value, "to_numpy"):
            needed = "bool" if kinds == "biu" else "np.int64" if "integers" in what else "np.float32"
            hint = f" (a data frame with bool or nullable columns: pass .to_numpy({needed}))"
        raise TypeError(f"{name} must hold {what}, got dtype {result.dtype}{hint}")
    return result


def _foreign(value: Any, name: str) -> Array:
    """Read an array of another library, or any other object that NumPy can read."""
    ma = sys.modules.get("numpy.ma")  # a masked array exists only if this module was imported
    if ma is not None and isinstance(value, ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: fill its gaps first, for example by .filled(0)")
    try:
        if getattr(value, "is_leaf", False) and hasattr(value, "detach"):  # a parameter of PyTorch
            value = value.detach()
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            value = value.float()  # exact, and NumPy can read it
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a foreign __array__ or __dlpack__ may raise anything
        raise TypeError(f"{name} cannot be read as an array: {error}") from error


def plain(value: Array, dtype: np.dtype[Any]) -> Array:
    """Return the same numbers as a plain array of `dtype`: `value` itself where it is one."""
    if value.dtype == dtype and value.flags.c_contiguous and value.flags.aligned:
        step = dtype.itemsize  # the flag ignores the strides of axes of length 1, the core does not
        for n, stride in zip(reversed(value.shape), reversed(value.strides), strict=True):
            if stride != step:
                break
            step *= n
        else:
            return value
    with np.errstate(under="ignore"):
        return np.array(value, dtype, order="C", copy=True)


def floats(value: object, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a plain array of the given shape."""
    return plain(shaped(value, name, shape), dtype)


def shaped(value: object, name: str, shape: tuple[int, ...]) -> Array:
    """Return an array of the given shape, not yet plain."""
    result = array(value, name)
    if result.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {result.shape}")
    return result


def sequence(value: object, features: int, batch_first: bool) -> Array:
    """Return x as an array of 2 or 3 dimensions, not yet plain."""
    result = array(value, "x")
    if result.ndim not in (2, 3) or result.shape[-1] != features:
        order = "B, T" if batch_first else "T, B"
        raise ValueError(f"x must have shape ({order}, {features}) or (T, {features}), got {result.shape}")
    return result


def pair(value: object, name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[object, object]:
    """Return the two items of a state (h, c), either of which may be None."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        what = f"{len(value)} items" if isinstance(value, (tuple, list)) else shown(value)
        same = f"arrays of shape {shapes[0]}"
        of = same if shapes[0] == shapes[1] else f"{same} and {shapes[1]}"
        raise TypeError(f"{name} must be None or a pair (h, c) of {of}, got {what}")
    return value[0], value[1]


def lengths(value: Array, steps: int, batch: int, *, batched: bool, of: str = "x") -> Array:
    """Return the rows' lengths as int64 (B,); a single number will do if x has no batch axis."""
    result = np.array(value)  # a copy: another thread could be writing to it
    if result.dtype.kind == "f":  # float16 cannot hold every number of steps
        result = result.astype(np.float64)
    if not batched and result.ndim == 0:
        result = result.reshape(1)
    if result.shape != (batch,):
        raise ValueError(f"lengths must have shape ({batch},), one for each row of {of}, got {result.shape}")
    outside = ~((result >= 0) & (result <= steps))  # NaN too
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"lengths must be between 0 and T = {steps}, got {result[row]} for row {row}")
    whole = result.astype(np.int64)
    if result.dtype.kind == "f" and (whole != result).any():
        row = int((whole != result).argmax())
        raise ValueError(f"lengths must be whole numbers, got {result[row]} for row {row}")
    return whole


def bools(value: Array, name: str, leading: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a plain array of bool of x's shape without its last axis; integers 0 and 1 will do."""
    if value.shape != leading:
        raise ValueError(f"{name} must have shape {leading}, x's without its last axis, got {value.shape}")
    result = np.array(value, order="C")
    if result.dtype.kind != "b" and ((result != 0) & (result != 1)).any():
        raise ValueError(f"{name} must hold {BOOLS}, got other integers")
    return plain(result, np.dtype(np.bool_))


def rows(value: object, batch: int) -> NDArray[np.bool_]:
    """Return a plain array of bool (B,) from one, or from the numbers of rows."""
    given = array(value, "rows", "bools, one for each row, or numbers of rows", "biu")
    if given.dtype.kind == "b":
        if given.shape != (batch,):
            raise ValueError(f"rows must have shape ({batch},), got {given.shape}")
        return np.array(given)
    if given.ndim != 1 or ((given < 0) | (given >= batch)).any():
        raise ValueError(f"rows must be a list of numbers from 0 to {batch - 1}, got {shown(value)}")
    result = np.zeros(batch, np.bool_)
    result[given.astype(np.intp)] = True
    return result


def buffer(value: object, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return the base-class view of an array to write into; nothing about it is converted."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy.ndarray to write into, got {shown(value)}")
    ma = sys.modules.get("numpy.ma")
    if ma is not None and isinstance(value, ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array")
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    if value.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype}, got {value.dtype}")
    if not value.flags.writeable:
        raise ValueError(f"{name} must be writable, got a read-only array")
    if _overlaps_itself(value):
        raise ValueError(f"{name} must not overlap itself: several of its elements are one place in memory")
    return np.asarray(value)


def _overlaps_itself(value: Array) -> bool:
    """Return True unless each axis steps over all that the finer axes span; a few odd layouts count as overlaps."""
    span = value.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(value.strides, value.shape, strict=True) if n > 1):
        if stride < span:
            return value.size > 0
        span = stride * (n - 1) + span
    return False


def apart(target: Array, name: str, others: Mapping[str, Array | None]) -> None:
    """Raise ValueError if `target`, which is to be written, shares memory with one of `others`."""
    effort: Any = 1000
    for other, value in others.items():
        if value is None:
            continue
        try:
            shared = np.shares_memory(target, value, max_work=effort)
        except RuntimeError:  # too hard to tell: numpy's TooHardError
            shared = True
        if shared:
            raise ValueError(f"{name} must not share memory with {other}")


def computed(result: Result | None) -> Result:
    """Return the core's result for plain arrays, which it has no reason to refuse."""
    if result is None:
        raise SystemError("quadgate's core refused arguments that Python found right: please report this")
    return result


def shown(value: object) -> str:
    """Return a value for an error message: itself if it is simple and short, else its type."""
    if value is None or isinstance(value, (bool, int, float, str, tuple, list)):
        try:
            text = repr(value)
        except Exception:  # an int too long to print, or items whose repr raises anything
            text = ""
        if 0 < len(text) <= 80:
            return text
    if isinstance(value, type):
        return f"the class {value.__name__}"
    bits = f" of {value.bit_length()} bits" if isinstance(value, int) else ""
    return f"{type(value).__name__}{bits}"
