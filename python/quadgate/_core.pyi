"""The compiled core. Arguments must be plain arrays (see `quadgate._check`); for others it returns None."""

import sys
from typing import Any, TypedDict, final, type_check_only

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

__version__: str

_Array = NDArray[Any]
_State = tuple[_Array, _Array]
_Mask = NDArray[np.bool_]

@type_check_only
class CpuInfo(TypedDict):
    isa: str
    supported: list[str]
    cores: int
    threads: int
    l1d: int
    l2: int
    l3: int

@final
class Tape:
    @property
    def nbytes(self) -> int: ...
    @property
    def x_shape(self) -> tuple[int, ...]: ...
    @property
    def network(self) -> int: ...  # the id of its network
    def gates(self, state: int, /) -> _Array: ...
    def cells(self, state: int, /) -> _Array: ...

@final
class Network:
    def __new__(
        cls,
        dtype: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        directions: int,
        bias: bool,
        options: dict[str, Any] | None,
        batch_first: bool,
        /,
    ) -> Self: ...
    @property
    def id(self) -> int: ...  # the same for all successors
    @property
    def nbytes(self) -> int: ...  # of the packed weights
    # Fills float32 arrays if 16-bit weights are packed as float32. None: only the answer.
    def unpack(self, matrices: list[_Array] | None, /) -> bool: ...
    def successor(self, params: list[_Array], /) -> Network: ...  # the same with other parameters
    def forward(
        self, x: object, state: object, lengths: object, out: object, resets: object, cells: bool, /
    ) -> Any: ...  # (y, (h, c)), with `cells` (y, (h, c), cells), or None
    def forward_tape(
        self,
        x: object,
        state: object,
        lengths: object,
        resets: object,
        cells: bool,
        dropped: dict[str, _Mask] | None,
        /,
    ) -> Any: ...  # the same with a Tape at the end
    def backward(
        self,
        tape: Tape,
        dy: object,
        dstate: object,
        input_grad: bool,
        state_grad: bool,
        into: dict[str, Any] | None,
        names: dict[str, Any],  # of the parameters in the core's order; values are not read
        accumulate: bool,
        dcells: object,
        norms: tuple[_Array, _Array] | None,
        # dx, dh0, dc0, and those of the parameters, whose vector comes last without `into`; or None
        /,
    ) -> tuple[_Array | None, _Array | None, _Array | None, list[_Array]] | None: ...
    def make_tape(self, x: _Array, state: _State, y: _Array, gates: _Array, c: _Array, /) -> Tape | None: ...

@final
class Stream:
    def __new__(cls, net: Network, batch_size: int, /) -> Self: ...
    def step(self, x: object, out: object, net: Network, /) -> _Array | None: ...
    def run(self, x: object, out: object, resets: object, cells: bool, net: Network, /) -> Any: ...
    def reset(self, rows: _Mask | None, /) -> None: ...
    def get_state(self) -> _State: ...
    def set_state(self, h: _Array, c: _Array, /) -> None: ...

@final
class Block:  # memory that the core writes, with a read-only buffer
    def __new__(cls, size: int, /) -> Self: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def exports(self) -> int: ...  # open buffers

@final
class Dense:
    def __new__(
        cls, weight: _Array, bias: _Array | None, activation: tuple[str, float, float] | None, /
    ) -> Self: ...  # the arrays must not change any more
    def forward(self, x: _Array, keep: bool, /) -> tuple[_Array, _Array | None]: ...  # y, and z if backward needs it
    def backward(
        self,
        x: _Array,
        z: _Array | None,
        y: _Array | None,
        dy: _Array,
        need_x: bool,
        dweight: _Array,
        dbias: _Array | None,
        /,
    ) -> _Array | None: ...  # dx

def embed(weight: _Array, ids: _Array, /) -> _Array: ...
def embed_back(ids: _Array, dy: _Array, dweight: _Array, /) -> None: ...
def softmax_cross_entropy(
    logits: _Array, targets: _Array, weights: _Array | None, divisor: float, gradient: bool, /
) -> tuple[float, _Array | None]: ...
def gradient_squares(arrays: list[_Array], /) -> list[float]: ...
def optimize(
    numbers: tuple[Any, ...],
    params: list[_Array],
    grads: list[_Array],
    slots: list[list[_Array]],
    scales: list[float],
    blocks: list[Block],
    /,
) -> None: ...  # into the blocks
def replace_all(swaps: list[Any], /) -> bool: ...  # (object, name, value) or (object, name, value, expected)
def set_num_threads(n: int, /) -> None: ...
def get_num_threads() -> int: ...
def cpu_info() -> CpuInfo: ...
def sigmoid(x: _Array, /) -> _Array: ...
def tanh(x: _Array, /) -> _Array: ...
def activation(name: str, alpha: float, beta: float, x: _Array, /) -> _Array: ...
