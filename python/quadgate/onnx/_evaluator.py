"""LSTM nodes of whole models, in onnx's own evaluator; the only module here that imports onnx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx.reference
from onnx.reference.op_run import OpRun

from ._attributes import parse
from ._operator import Operator


class LSTM(OpRun):
    """The operator LSTM of a model, computed by quadgate: one of the ``new_ops`` of an evaluator of onnx.

    onnx's own implementation reads neither sequence_lens nor activations, clip and input_forget; this one reads all.
    The network made of a node's weights is kept, and used again as long as they are the same.

    Notes
    -----
    onnx does not pass ``new_ops`` on to functions that a model defines: `quadgate.onnx.ReferenceEvaluator` does.

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
        # output_sequence, of version 1 of the operator, says whether Y is wanted: the node's outputs say so too.
        found = parse(**{name: value for name, value in attributes.items() if value is not None})
        node = self._operator
        # Within a function of the model the attributes may differ from call to call.
        if node is None or node.attributes != found:
            node = self._operator = Operator(found)
        args = [*inputs, *[None] * (8 - len(inputs))]
        return node.run(args, keep=True)[: len(self.onnx_node.output)]


class ReferenceEvaluator(onnx.reference.ReferenceEvaluator):
    """``onnx.reference.ReferenceEvaluator`` in which quadgate computes every LSTM, wherever in the model it is.

    Parameters
    ----------
    proto : onnx.ModelProto, str, bytes, or another proto
        The model, or its file's name or contents.
    new_ops : list of OpRun classes, optional
        More operators of one's own. One named LSTM is used instead of quadgate's.
    **keywords
        As ``onnx.reference.ReferenceEvaluator`` has them.

    Examples
    --------
    >>> import quadgate.onnx
    >>> session = quadgate.onnx.ReferenceEvaluator("model.onnx")
    >>> outputs = session.run(None, {"x": x})
    """

    def __init__(self, proto: Any, *, new_ops: Sequence[type[OpRun]] | None = None, **keywords: Any) -> None:
        super().__init__(proto, new_ops=[*(new_ops or ()), LSTM], **keywords)
