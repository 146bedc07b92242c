"""qg.onnx.load of models that keep their weights in many steps, and of models that are made to fill the memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw
from onnx_models import FLOAT, helper, onnx, tensor

WIDE = 160


def exported(dtype: Any = np.float32, cast: str = "") -> tuple[Any, dict[str, Any]]:
    """Both directions of a module as torch.onnx writes them without folding: PyTorch's rows, a Slice for each gate.

    A Cast follows the rows or the Concat, or nothing.
    """
    given, nodes = {}, []
    for k in range(4):
        nodes.append(helper.make_node("Constant", [], [f"c{k}"], value=tensor("", np.array([k * WIDE]))))
    nodes.append(helper.make_node("Constant", [], ["c4"], value=tensor("", np.array([4 * WIDE]))))
    nodes.append(helper.make_node("Constant", [], ["axes"], value=tensor("", np.array([0]))))

    def converted(name: str, here: bool) -> str:
        if here:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=FLOAT))
        return f"{name}_cast" if here else name

    for what, name in (("W", "weight_ih"), ("R", "weight_hh")):
        parts = []
        for suffix in ("_l0", "_l0_reverse"):
            own = name + suffix
            given[own] = (draw(4 * WIDE, WIDE, seed=len(given)) / 16).astype(dtype)
            rows = converted(own, cast == "first")
            for gate, k in (("i", 0), ("o", 3), ("f", 1), ("c", 2)):  # from PyTorch's order i, f, c, o
                nodes.append(helper.make_node("Slice", [rows, f"c{k}", f"c{k + 1}", "axes"], [f"{own}_{gate}"]))
            nodes.append(helper.make_node("Concat", [f"{own}_{gate}" for gate in "iofc"], [f"{own}_4"], axis=0))
            nodes.append(helper.make_node("Unsqueeze", [converted(f"{own}_4", cast == "last"), "axes"], [f"{own}_5"]))
            parts.append(f"{own}_5")
        nodes.append(helper.make_node("Concat", parts, [what], axis=0))
    nodes.append(helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=WIDE, direction="bidirectional"))
    shapes = {"X": ["T", "B", WIDE], "Y": ["T", 2, "B", WIDE]}
    ends = [[helper.make_tensor_value_info(name, FLOAT, shape)] for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", *ends, [tensor(*item) for item in given.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    return proto, given


@pytest.mark.parametrize(("dtype", "cast"), [(np.float32, ""), (np.float16, "first"), (np.float16, "last")])
def test_exports_without_folding(dtype, cast):
    proto, given = exported(dtype, cast)
    net = qg.onnx.load(proto)
    for name, value in given.items():
        assert np.array_equal(net.params[name], value.astype(np.float32))
