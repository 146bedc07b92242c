"""Real-time recurrent learning: exact gradients by forward-mode differentiation, for small networks learning online."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import numpy as np

from .. import _check, _core
from .._results import NamedGrads
from ..lstm import LSTM
from ..rnn import RNN
from . import _optimizers, _pass

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._optimizers import Optimizer

    Array = NDArray[Any]

# Options that this file's equations have, or that have no part in them.
_KNOWN = {
    *("num_layers", "bias", "batch_first", "nonlinearity", "initialization", "forget_bias", "dtype"),
}
_MOST = 1 << 31  # bytes of an influence matrix: more is a mistake


class Carried(NamedTuple):
    """From step to step, replaced as a whole: for each layer, of h and of c, arrays (B, H) and (B, H, N)."""

    states: list[list[Array]]
    influence: list[list[Array]]


class RTRL:
    """A network that carries the derivative of its state by its parameters along, from `rtrl`.

    One step at a time: `step` takes an input and returns y, `gradients` are those of a loss of this step's y through
    all steps so far, `learn` takes an optimizer's step with them. Nothing is unrolled, so a sequence has no end and
    memory does not grow. After an update the derivative carried along is that of a network whose parameters moved on
    the way, as in all online learning; without updates the gradients are those of backpropagation through time.

    Parameters
    ----------
    net : LSTM or RNN
        N parameters, L layers, H units, one direction.
    batch_size : int
        B, the number of rows that run side by side. Gradients are sums over them.
    optimizer : str or Optimizer, optional
        For `learn`, as in `Sequential.compile`.

    Raises
    ------
    TypeError, ValueError
        If net is no network, its weights are quantised or it has other options than `rtrl` takes, or if the influence
        would take too much memory.

    Notes
    -----
    With s = (h, c) and the step s' = F(s, x, w), the influence ds/dw follows ds'/dw = (dF/ds) ds/dw + dF/dw (Williams
    and Zipser, 1989, equation 3). It has B * L * 2H * N numbers, and a step costs about 4 H * H * N
    multiply-adds for each row and layer.
    """

    def __init__(
        self, net: LSTM | RNN, batch_size: SupportsIndex = 1, optimizer: str | Optimizer | None = None
    ) -> None:
        if not isinstance(net, (LSTM, RNN)):
            raise TypeError(f"net must be a quadgate.LSTM or quadgate.RNN, got {type(net).__name__}")
        odd = sorted(set(net._options.changed()) - _KNOWN)
        if odd:
            raise ValueError(
                f"rtrl is for networks without {', '.join(odd)}; backpropagation through time has them all"
            )
        net._snapshot.refuse_change()
        o = net._options
        self._net, self._batch = net, _check.size(batch_size, "batch_size")
        self._elman, self._gates = isinstance(net, RNN), 1 if isinstance(net, RNN) else 4
        parts = 1 if self._elman else 2
        shape = (self._batch, o.hidden_size, net.num_parameters)
        if self._batch * o.hidden_size * net.num_parameters * o.dtype.itemsize > _MOST:
            raise ValueError(
                f"rtrl needs {parts * o.num_layers} arrays of {shape}: it is for small networks, and this one has "
                f"{net.num_parameters} parameters"
            )
        self._carried = self._zeros()
        self._shapes = {name: value.shape for name, value in net.params.items()}
        self._starts, at = {}, 0
        for name, value in net.params.items():
            self._starts[name] = at
            at += value.size
        self._optimizer = None if optimizer is None else _optimizers.get(optimizer)
        self._memory: Any = None if self._optimizer is None else self._optimizer.start([net.params.flat])

    def _zeros(self) -> Carried:
        o, parts = self._net._options, 1 if self._elman else 2
        states = [[np.zeros((self._batch, o.hidden_size), o.dtype)] * parts for _ in range(o.num_layers)]
        shape = (self._batch, o.hidden_size, self._net.num_parameters)
        return Carried(states, [[np.zeros(shape, o.dtype)] * parts for _ in range(o.num_layers)])

    def step(self, x: ArrayLike) -> Array:
        """Take one step, of the state and of its derivative.

        Parameters
        ----------
        x : array (B, I), or (I,) if B is 1

        Returns
        -------
        array (B, H), or (H,)
            Last layer's h.

        Raises
        ------
        TypeError, ValueError
            If x has a wrong type or shape. Nothing has changed then.
        """
        o, params = self._net._options, self._net.params
        given = _check.array(x, "x")
        single = given.ndim == 1
        shape = (o.input_size,) if single and self._batch == 1 else (self._batch, o.input_size)
        below: Array = _check.floats(given, "x", shape, o.dtype).reshape(self._batch, o.input_size)
        d_below: Array | None = None  # x does not depend on the parameters
        states, influence = [], []
        for k in range(o.num_layers):
            w = {
                name: params[f"{name}_l{k}"] for name in ("weight_ih", "weight_hh", "bias") if f"{name}_l{k}" in params
            }
            h, d_h = self._carried.states[k][0], self._carried.influence[k][0]
            a = below @ w["weight_ih"].T + h @ w["weight_hh"].T
            d_a = w["weight_hh"] @ d_h
            if "bias" in w:
                a += w["bias"]
            if d_below is not None:
                d_a += w["weight_ih"] @ d_below
            self._direct(d_a, f"weight_ih_l{k}", below)
            self._direct(d_a, f"weight_hh_l{k}", h)
            if "bias" in w:
                self._direct(d_a, f"bias_l{k}", np.ones((self._batch, 1), o.dtype))
            new, d_new = self._elman_cell(a, d_a) if self._elman else self._lstm_cell(k, a, d_a)
            states.append(new)
            influence.append(d_new)
            below, d_below = new[0], d_new[0]
        self._carried = Carried(states, influence)
        y: Array = below[0] if single else below
        return np.array(y)

    def _direct(self, d_a: Array, name: str, source: Array) -> None:
        """Add the derivative of the gates' sums by their own row of a parameter, which is what it is multiplied by."""
        rows = d_a.shape[1]
        start, width = self._starts[name], source.shape[1]
        block = d_a[:, :, start : start + rows * width].reshape(self._batch, rows, rows, width)
        np.einsum("brrj->brj", block)[...] += source[:, None]

    def _elman_cell(self, a: Array, d_a: Array) -> tuple[list[Array], list[Array]]:
        if self._net._options.changed().get("nonlinearity") == "relu":
            h = np.maximum(a, 0)
            slope = (a > 0).astype(a.dtype)
        else:
            h = _core.tanh(a)
            slope = 1 - h * h
        return [h], [slope[..., None] * d_a]

    def _lstm_cell(self, k: int, a: Array, d_a: Array) -> tuple[list[Array], list[Array]]:
        (_, c), (_, d_c) = self._carried.states[k], self._carried.influence[k]
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, o = (_core.sigmoid(np.ascontiguousarray(gate)) for gate in (i, f, o))
        g = _core.tanh(np.ascontiguousarray(g))
        d_i, d_f, d_g, d_o = np.split(d_a, 4, axis=1)
        c_new = f * c + i * g
        t = _core.tanh(c_new)
        d_c_new = f[..., None] * d_c
        d_c_new += (g * i * (1 - i))[..., None] * d_i
        d_c_new += (c * f * (1 - f))[..., None] * d_f
        d_c_new += (i * (1 - g * g))[..., None] * d_g
        d_h = (o * (1 - t * t))[..., None] * d_c_new
        d_h += (t * o * (1 - o))[..., None] * d_o
        return [o * t, c_new], [d_h, d_c_new]

    def gradients(self, dy: ArrayLike) -> NamedGrads:
        """Return the gradients of a loss by all parameters, through all steps so far.

        Parameters
        ----------
        dy : array of the last y's shape
            Gradient of the loss by the last step's y. A loss of all steps is a sum: add the gradients of each.

        Returns
        -------
        dict
            Gradients by parameter name, views of ``flat``; sums over the rows.

        Raises
        ------
        TypeError, ValueError
            If dy has a wrong type or shape.
        """
        o = self._net._options
        given = _check.array(dy, "dy")
        shape = (o.hidden_size,) if given.ndim == 1 and self._batch == 1 else (self._batch, o.hidden_size)
        d = _check.floats(given, "dy", shape, o.dtype).reshape(1, self._batch * o.hidden_size)
        with np.errstate(all="ignore"):  # `learn` refuses what is not finite
            flat = (d @ self._carried.influence[-1][0].reshape(d.shape[1], -1))[0]
        return NamedGrads.of_flat(flat, self._shapes)

    def learn(self, dy: ArrayLike) -> NamedGrads:
        """Update the network by one step of the optimizer with `gradients`, which are returned.

        Raises
        ------
        ValueError
            If there is no optimizer.
        FloatingPointError
            If a gradient is NaN or infinite. Nothing has changed then.
        """
        if self._optimizer is None:
            raise ValueError("learn needs an optimizer: rtrl(net, optimizer=train.Adam(1e-3)) for example")
        grads = self.gradients(dy)
        _pass.require_finite([grads.flat], self._memory.step)
        before = self._net._snapshot
        (flat,), memory = self._optimizer.update([before.params.flat], [grads.flat], self._memory)
        new = self._net._successor(NamedGrads.of_flat(flat, self._shapes))
        if not _core.replace_all([(self._net, "_snapshot", new, before), (self, "_memory", memory)]):
            raise RuntimeError("the parameters were changed by other means during a step of learning")
        return grads

    def reset(self) -> None:
        """Set the state and its derivative to zeros."""
        self._carried = self._zeros()

    @property
    def state(self) -> Any:
        """The state: (h, c), arrays (L, B, H), or h alone of an RNN; a copy."""
        parts = [np.stack(part) for part in zip(*self._carried.states, strict=True)]
        return parts[0] if self._elman else tuple(parts)

    @property
    def net(self) -> LSTM | RNN:
        """The network."""
        return self._net

    def __repr__(self) -> str:
        return f"rtrl({self._net!r}, batch_size={self._batch})"


def rtrl(net: LSTM | RNN, batch_size: SupportsIndex = 1, *, optimizer: str | Optimizer | None = None) -> RTRL:
    """Return a network with exact gradients at every step, for online learning; the arguments are those of `RTRL`.

    Raises
    ------
    TypeError
        If ``net`` is no network or has quantised weights, or ``optimizer`` is neither a name nor an optimizer.
    ValueError
        If no optimizer has the name, or the network has an option that changes its equations, other than
        ``num_layers``, ``bias`` and ``nonlinearity``, or is too large: the derivative has 2 L B H N numbers, of an RNN
        half as many.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> from quadgate import train
    >>> learner = train.rtrl(qg.LSTM(2, 8, rng=0), optimizer=train.SGD(0.1))
    >>> for x in np.random.default_rng(0).normal(size=(5, 2)):
    ...     y = learner.step(x)
    ...     grads = learner.learn(y - x.sum())  # the gradient of half the squared error
    >>> grads.flat.shape
    (352,)
    """
    return RTRL(net, batch_size, optimizer)
