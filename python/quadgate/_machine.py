"""Facts of the machine, and the number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

from . import _check, _core, _threadpools

if TYPE_CHECKING:
    from ._core import CpuInfo

__all__ = ["cpu_info", "get_num_threads", "set_num_threads"]


def set_num_threads(n: SupportsIndex) -> None:
    """Set the largest number of threads of a call, for the whole process; the calling thread is one of them.

    Parameters
    ----------
    n : int
        At least 1. Small work uses fewer. Results do not depend on it.

    Raises
    ------
    TypeError, ValueError
        If n is not a positive int that 31 bits hold.
    """
    n = _check.size(n, "n")
    if n >= 2**31:
        raise ValueError(f"n must be below 2**31, got {n}")
    _threadpools.meet_threadpoolctl()
    _core.set_num_threads(n)


def get_num_threads() -> int:
    """Return the largest number of threads of a call.

    At first it is the value of the environment variable QUADGATE_NUM_THREADS or, if that is not set, OMP_NUM_THREADS;
    without either it is the number of cores of the process. Limits of threadpoolctl hold here too, from the first
    network on that is made after threadpoolctl was imported.
    """
    _threadpools.meet_threadpoolctl()
    return _core.get_num_threads()


def cpu_info() -> CpuInfo:
    """Return facts of the machine.

    Returns
    -------
    dict
        ``isa``: the instruction set in use, which the environment variable QUADGATE_ISA can force; ``supported``: those
        that would work here; ``cores``: those this process may use; ``threads``: as `get_num_threads`; ``l1d``, ``l2``,
        ``l3``: caches in bytes, 0 where unknown.
    """
    return _core.cpu_info()


_threadpools.from_environment()
