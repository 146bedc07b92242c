"""The conversions of docs/coming-from, live, where JAX, Flax, Haiku or Equinox are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw

jax: Any = pytest.importorskip("jax", reason="JAX is not installed: install jax")
INPUTS, H, STEPS = 5, 4, 6
TERMS = 4 * (INPUTS + H + 1)


def drawn(tree: Any) -> Any:
    """The same tree with all parameters random, the biases too."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda a: jax.numpy.asarray(0.6 * rng.normal(size=a.shape), a.dtype), tree)


def close(lstm: Any, y: list[Any], x: Any) -> None:
    agree(lstm(x)[0], np.stack([np.asarray(row) for row in y]), TERMS, STEPS, "y")


def stacked(parts: Any, gates: str, kind: str) -> Any:
    """One array for four gates: Flax keeps a Dense for each."""
    return np.concatenate([np.asarray(parts(gate)[kind]).T for gate in gates])


@pytest.mark.parametrize("cell", ["LSTMCell", "OptimizedLSTMCell"])
def test_flax_linen(cell):
    flax = pytest.importorskip("flax.linen", reason="Flax is not installed: install flax")
    layer, x = getattr(flax, cell)(H), draw(STEPS, INPUTS)
    carry = (np.zeros(H, np.float32), np.zeros(H, np.float32))
    params = drawn(layer.init(jax.random.key(0), carry, x[0]))
    y = []
    for row in x:
        carry, out = layer.apply(params, carry, row)
        y.append(out)
    p = params["params"]
    lstm = qg.io.from_gates(
        stacked(lambda g: p[f"i{g}"], "ifgo", "kernel"),
        stacked(lambda g: p[f"h{g}"], "ifgo", "kernel"),
        stacked(lambda g: p[f"h{g}"], "ifgo", "bias"),
    )
    close(lstm, y, x)


@pytest.mark.parametrize("cell", ["LSTMCell", "OptimizedLSTMCell"])
def test_flax_nnx(cell):
    nnx: Any = pytest.importorskip("flax.nnx", reason="Flax is not installed: install flax")
    layer, x = getattr(nnx, cell)(INPUTS, H, rngs=nnx.Rngs(0)), draw(STEPS, INPUTS)
    nnx.update(layer, drawn(nnx.state(layer, nnx.Param)))
    carry, y = (jax.numpy.zeros(H), jax.numpy.zeros(H)), []
    for row in x:
        carry, out = layer(carry, row)
        y.append(out)
    if cell == "OptimizedLSTMCell":  # one Dense for all gates
        w, r, b = layer.dense_i.kernel, layer.dense_h.kernel, layer.dense_h.bias
        lstm = qg.io.from_gates(np.asarray(w[...]).T, np.asarray(r[...]).T, np.asarray(b[...]))
    else:

        def gate(side: str) -> Any:
            return lambda g: nnx.to_pure_dict(
                nnx.state(getattr(layer, f"{side}{g}" if f"{side}{g}" != "if" else "if_"))
            )

        lstm = qg.io.from_gates(
            stacked(gate("i"), "ifgo", "kernel"),
            stacked(gate("h"), "ifgo", "kernel"),
            stacked(gate("h"), "ifgo", "bias"),
        )
    close(lstm, y, x)


def test_haiku():
    haiku: Any = pytest.importorskip("haiku", reason="Haiku is not installed: install dm-haiku")
    x = draw(STEPS, INPUTS)

    def forward(x: Any) -> Any:
        core = haiku.LSTM(H)
        return haiku.static_unroll(core, x, core.initial_state(None))[0]

    transformed = haiku.without_apply_rng(haiku.transform(forward))
    params = drawn(transformed.init(jax.random.key(0), x))
    y = list(transformed.apply(params, x))
    p = params["lstm/linear"]
    w, b = np.asarray(p["w"]), np.asarray(p["b"])  # (I + H, 4H): i, g, f, o; f + 1 when it runs
    lstm = qg.io.from_gates(w[:INPUTS].T, w[INPUTS:].T, b, order="igfo", forget_bias=1.0)
    close(lstm, y, x)


def test_equinox():
    equinox: Any = pytest.importorskip("equinox", reason="Equinox is not installed: install equinox")
    cell, x = equinox.nn.LSTMCell(INPUTS, H, key=jax.random.key(0)), draw(STEPS, INPUTS)
    cell = drawn(cell)
    state, y = (jax.numpy.zeros(H), jax.numpy.zeros(H)), []
    for row in x:
        state = cell(row, state)
        y.append(state[0])
    close(qg.io.from_gates(cell.weight_ih, cell.weight_hh, cell.bias), y, x)
