"""qg.onnx.load and store in functions of a model: overloads, inputs that are shared, inputs that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import quadgate as qg
from onnx_models import H, changed, helper, model, tensor, weights

OPSETS = [helper.make_opsetid("", 17)]


def with_constants(overload: str, seed: int) -> Any:
    """A function whose weights are within."""
    w = weights(seed=seed)
    inner = [helper.make_node("Constant", [], [name], value=tensor("", value)) for name, value in w.items()]
    inner.append(helper.make_node("LSTM", ["x", *w], ["y"], "cell", hidden_size=H))
    return helper.make_function("own", "Net", ["x"], ["y"], inner, OPSETS, overload=overload)


def test_overloads_of_a_function():
    """A call has the function of its own overload, and what another is called does not count."""
    nodes = [helper.make_node("Net", ["X"], [name], name, domain="own", overload=name) for name in "ab"]
    nodes.append(helper.make_node("Add", ["a", "b"], ["Y"]))
    proto = model(nodes, functions=[with_constants("a", 0), with_constants("b", 20)])
    for name, seed in (("a/cell", 0), ("b/cell", 20)):
        net = qg.onnx.load(proto, name)
        assert np.array_equal(net.params["weight_ih_l0"][:H], weights(seed=seed)["W"][0, :H])
        tuned = changed(net)
        stored = qg.onnx.store(proto, name, tuned)
        assert np.array_equal(qg.onnx.load(stored, name).params["weight_ih_l0"], tuned.params["weight_ih_l0"])
        other = {"a/cell": "b/cell", "b/cell": "a/cell"}[name]
        kept = qg.onnx.load(proto, other).params["weight_ih_l0"]
        assert np.array_equal(qg.onnx.load(stored, other).params["weight_ih_l0"], kept)
