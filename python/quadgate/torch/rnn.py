"""The module RNN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from .._options import _LSTM_ONLY
from ._module import Recurrent

if TYPE_CHECKING:
    import torch

__all__ = ["RNN"]


class RNN(Recurrent):
    """``torch.nn.RNN`` on quadgate's core, for CPUs, with quadgate's options.

    Parameters
    ----------
    input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype
        As in ``torch.nn.RNN``, with the same parameters from the same seed. The dtype must be float32 or float64.
    recurrent_dropout, weight_drop, reverse, merge, shortcut, initialization
        As in `quadgate.RNN`; what is drawn comes from torch's generator.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, or two make no sense together; the message names them.

    Notes
    -----
    The notes of `LSTM` hold here too.

    Examples
    --------
    >>> import torch, quadgate.torch
    >>> rnn = quadgate.torch.RNN(8, 16, nonlinearity="relu")
    >>> y, h = rnn(torch.zeros(10, 3, 8))
    >>> y.shape, h.shape
    (torch.Size([10, 3, 16]), torch.Size([1, 3, 16]))
    """

    __module__ = "quadgate.torch"  # the name that pickles and errors show

    _elman = True
    _absent = ("dtype", *_LSTM_ONLY)

    def __init__(
        self,
        input_size: SupportsIndex,
        hidden_size: SupportsIndex,
        num_layers: SupportsIndex = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        reverse: bool = False,
        merge: Literal["concat", "sum", "mul", "mean"] = "concat",
        shortcut: Literal["residual", "highway", "dense"] | None = None,
        initialization: Literal["pytorch", "keras"] = "pytorch",
    ) -> None:
        self._create(locals(), device, dtype)

    def forward(
        self,
        input: Any,
        hx: torch.Tensor | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        padding_output: str = "zero",
    ) -> Any:
        """Run the network.

        Parameters
        ----------
        input, lengths, resets, mask, padding_output
            As in `LSTM.forward`.
        hx : tensor (L*D, B, H), or (L*D, H) without a batch; optional
            The initial state; zeros if it is not given.

        Returns
        -------
        y : tensor (T, B, O), (B, T, O) or (T, O), or PackedSequence
            Last layer's output at every step.
        h : tensor of hx's shape
            Final state.

        Raises
        ------
        TypeError, ValueError, NotImplementedError
            As `LSTM.forward`.
        """
        y, h = self._run(input, None if hx is None else [hx], lengths, resets, mask, padding_output, False)
        return y, h
