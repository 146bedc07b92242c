"""LSTM nodes of whole models in onnx's own evaluator. No other module of this package imports onnx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx.reference
from onnx.reference.op_run import OpRun

from ._attributes import parse
from ._operator import Operator


class LSTM(OpRun):
    """Implementation of the operator LSTM by quadgate, for the argument ``new_ops`` of onnx's evaluator.

    onnx's own implementation ignores sequence_lens, activations, clip and input_forget; this one supports all inputs
    and attributes. The network built from a node's weights is reused as long as the weights are unchanged.

    Notes
    -----
    onnx does not pass ``new_ops`` to functions that a model defines; `quadgate.onnx.ReferenceEvaluator` does.

    Examples
    --------
    >>> import onnx.reference, quadgate.onnx
    >>> session = onnx.reference.ReferenceEvaluator("model.onnx", new_ops=[quadgate.onnx.LSTM])
    >>> outputs = session.run(None, {"x": x})
    """

    op_domain = ""  # onnx's own operators

    def __init__(self, onnx_node: Any, run_params: dict[str, Any]) -> None:
        super().__init__(onnx_node, run_params)
        self._operator: Operator | None = None

    def _run(self, *inputs: Any, output_sequence: Any = None, **attributes: Any) -> tuple[Any, ...]:
        # Version 1 of the operator requests Y with output_sequence; the node's list of outputs implies it.
        found = parse(**{name: value for name, value in attributes.items() if value is not None})
        node = self._operator
        # Attributes of a node inside a function of the model may change between calls.
        if node is None or node.attributes != found:
            node = self._operator = Operator(found)
        args = [*inputs, *[None] * (8 - len(inputs))]
        return node.run(args, keep=True)[: len(self.onnx_node.output)]


class ReferenceEvaluator(onnx.reference.ReferenceEvaluator):
    """``onnx.reference.ReferenceEvaluator`` in which quadgate computes every LSTM, including those inside functions.

    Parameters
    ----------
    proto : onnx.ModelProto, str, bytes, or another proto
        A model, or the name or contents of its file.
    new_ops : list of OpRun classes, optional
        Further operators. One named LSTM replaces quadgate's.
    **keywords
        Further arguments of ``onnx.reference.ReferenceEvaluator``.

    Examples
    --------
    >>> import quadgate.onnx
    >>> session = quadgate.onnx.ReferenceEvaluator("model.onnx")
    >>> outputs = session.run(None, {"x": x})
    """

    def __init__(self, proto: Any, *, new_ops: Sequence[type[OpRun]] | None = None, **keywords: Any) -> None:
        super().__init__(proto, new_ops=[*(new_ops or ()), LSTM], **keywords)
