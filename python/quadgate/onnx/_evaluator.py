"""LSTM nodes of whole models in onnx's own evaluator.

All modules but this one and `_store` import onnx inside functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import onnx.reference
from onnx.reference.op_run import OpRun, RuntimeContextError

from ._attributes import parse
from ._operator import Operator
from ._quantised import dequantised


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


class DynamicQuantizeLSTM(LSTM):
    """Implementation of ``com.microsoft.DynamicQuantizeLSTM``, which onnxruntime makes of every LSTM that it quantises.

    The weights are dequantised and the arithmetic is that of float32: x and h are not quantised, as they are in
    onnxruntime. So the results are nearer to those of the model before its quantisation than onnxruntime's are. Over 20
    LSTMs of 5 inputs and 7 units, y is off by up to 2.8e-3 from that model, onnxruntime's by up to 4.9e-3, and the two
    differ by up to 4.1e-3.
    """

    op_domain = "com.microsoft"

    def _run(self, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        return super()._run(*dequantised(inputs), **attributes)


class ReferenceEvaluator(onnx.reference.ReferenceEvaluator):
    """``onnx.reference.ReferenceEvaluator`` in which quadgate computes every LSTM, also within functions and quantised.

    Parameters
    ----------
    proto : onnx.ModelProto, str, bytes, or another proto
        A model, or the name or contents of its file.
    new_ops : list of OpRun classes, optional
        Further operators. One of the same name and domain replaces quadgate's `LSTM` or DynamicQuantizeLSTM.
    **keywords
        Further arguments of ``onnx.reference.ReferenceEvaluator``.

    Raises
    ------
    ValueError
        If a function of the model has several overloads: onnx's evaluator takes one for another.
    Exception
        Whatever an operator raises, with the names of its node and operator in front, and those of the nodes around it.

    Notes
    -----
    It is for trying and checking models: all but the LSTMs runs in onnx's own Python. A small tagger (an embedding, two
    bidirectional layers of 64 units, a linear layer; 20 steps of one row) takes 5 to 7 times as long as in onnxruntime.
    With `quadgate.onnx.load` for its LSTMs and NumPy for the rest it takes 0.4 of onnxruntime's time.

    Examples
    --------
    >>> import quadgate.onnx
    >>> session = quadgate.onnx.ReferenceEvaluator("model.onnx")
    >>> outputs = session.run(None, {"x": x})
    """

    def __init__(self, proto: Any, *, new_ops: Sequence[type[OpRun]] | None = None, **keywords: Any) -> None:
        super().__init__(proto, new_ops=[*(new_ops or ()), LSTM, DynamicQuantizeLSTM], **keywords)
        functions = Counter((f.domain, f.name) for f in getattr(self.proto_, "functions", ()))
        for (domain, name), count in functions.items():
            if count > 1:  # onnx's evaluator runs the last of them, whatever is called
                raise ValueError(f"{domain}.{name} has {count} overloads, which onnx's evaluator cannot tell apart")

    def _init(self) -> None:
        super()._init()
        for node in self.rt_nodes_:
            node.run = _named(node.run, node.onnx_node)

    def _load_impl(self, node: Any, input_types: Any = None) -> Any:
        load = super()._load_impl
        return _named(lambda: load(node, input_types), node)()


def _named(call: Callable[..., Any], node: Any) -> Callable[..., Any]:
    """Return a function whose errors begin with the names of a node and of its operator."""

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        try:
            return call(*arguments, **keywords)
        except RuntimeContextError:  # onnx asks by it for the types of the inputs
            raise
        except Exception as error:
            label = node.name or next((name for name in node.output if name), "")
            where = f"node {label!r} ({node.domain + '.' if node.domain else ''}{node.op_type})"
            text = f"{where}: {_reason(error)}"
            if isinstance(error, OSError) or len(error.args) != 1:
                types = (MemoryError, OSError, ValueError)
                error = next((t for t in types if isinstance(error, t)), RuntimeError)(text)
            error.args = (text,)  # an exception of its type, for those who catch it by that
            error.named = True  # type: ignore[attr-defined]
            raise error

    return wrapped


def _reason(error: BaseException) -> str:
    """Return the message of an error, or of the error of a node inside that onnx put its own in the place of."""
    cause = error.__cause__
    while cause is not None and not hasattr(error, "named"):
        if hasattr(cause, "named"):
            return str(cause.args[0])
        cause = cause.__cause__
    text = str(error.args[0]) if len(error.args) == 1 else repr(error)
    first = error.__cause__
    if first is None or hasattr(error, "named"):
        return text
    return f"{text} ({type(first).__name__}: {first})"
