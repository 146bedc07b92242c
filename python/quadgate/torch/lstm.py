"""The module LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from ._module import Recurrent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from .._options import Activation

__all__ = ["LSTM"]


class LSTM(Recurrent):
    """``torch.nn.LSTM`` on quadgate's core, for CPUs, with quadgate's options.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        As in ``torch.nn.LSTM``, with the same parameters from the same seed. The dtype must be float32 or float64.
        Calls need parameters on the CPU. ``proj_size`` may be ``hidden_size`` or more.
    peephole, coupled, activations, cell_clip, proj_clip, gate_clip, layer_norm, layer_norm_eps
        As in `quadgate.LSTM`, as all below.
    recurrent_dropout, weight_drop, zoneout
        They act in ``train()``, with masks from torch's generator, as ``dropout`` does.
    reverse, merge, shortcut
        Order of reading, and what lies between layers.
    initialization, forget_bias
        First parameters, drawn from torch's generator.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k}, weight_hr_l{k} : Parameter
        As in ``torch.nn.LSTM``, with ``_reverse`` behind the names for the second direction.
    peephole_l{k}, norm_ih_l{k}, norm_hh_l{k}, norm_c_l{k}, weight_highway_l{k}, bias_highway_l{k} : Parameter
        As in `quadgate.LSTM.params`, where the options have them.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, or two make no sense together; the message names them.

    Notes
    -----
    ``dropout``, ``recurrent_dropout``, ``weight_drop``, ``zoneout`` and ``batch_first`` can be set later, too.
    There are no second derivatives, and no forward-mode ones: both raise. docs/torch.md has the rest: torch.compile,
    threads, and when changed parameters are seen.

    Examples
    --------
    >>> import torch, quadgate.torch
    >>> lstm = quadgate.torch.LSTM(8, 16, num_layers=2)
    >>> y, (h, c) = lstm(torch.zeros(10, 3, 8))
    >>> y.shape, h.shape
    (torch.Size([10, 3, 16]), torch.Size([2, 3, 16]))
    """

    __module__ = "quadgate.torch"  # the name that pickles and errors show

    _elman = False
    _absent = ("dtype", "nonlinearity")

    def __init__(
        self,
        input_size: SupportsIndex,
        hidden_size: SupportsIndex,
        num_layers: SupportsIndex = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: SupportsIndex = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        peephole: bool = False,
        coupled: bool = False,
        activations: Sequence[Activation] = ("sigmoid", "tanh", "tanh"),
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        gate_clip: float | None = None,
        layer_norm: Literal["output", "cell"] | None = None,
        layer_norm_eps: float = 1e-5,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        zoneout: tuple[float, float] = (0.0, 0.0),
        reverse: bool = False,
        merge: Literal["concat", "sum", "mul", "mean"] = "concat",
        shortcut: Literal["residual", "highway", "dense"] | None = None,
        initialization: Literal["pytorch", "keras"] = "pytorch",
        forget_bias: float | None = None,
    ) -> None:
        self._create(locals(), device, dtype)

    def forward(
        self,
        input: Any,
        hx: tuple[torch.Tensor, torch.Tensor] | None = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        mask: Any = None,
        padding_output: str = "zero",
        return_cells: bool = False,
    ) -> Any:
        """Run the network.

        Parameters
        ----------
        input : tensor (T, B, I), (B, T, I) if ``batch_first``, or (T, I); or PackedSequence
            The input sequences, of the parameters' dtype. Under autocast bfloat16 and float16 are converted to it.
        hx : (h0, c0), tensors (L*D, B, R) and (L*D, B, H), without B for an input without a batch; optional
            The initial state; zeros if it is not given. R is ``proj_size``, or H without a projection.
        lengths : tensor or array of int (B,), optional
            Number of steps of each row; y is 0 past it.
        resets : tensor or array of bool (T, B), (B, T) if ``batch_first``, or (T,); optional
            True at t starts a row anew before its step t, for example at an episode's first observation.
        mask : as ``resets``
            False for steps to skip.
        padding_output : "zero" or "last"
            y at masked steps.
        return_cells : bool
            True to return the last layer's c at every step, too.

        Returns
        -------
        y : tensor (T, B, O), (B, T, O) or (T, O), or PackedSequence
            Last layer's output at every step; O is D*R, or R if ``merge`` joins the directions otherwise.
        (h, c) : tensors of the state's shapes
            Final states.
        cells : tensor (T, B, D*H), (B, T, D*H) or (T, D*H), or PackedSequence
            Only with ``return_cells``.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape, device or value.
        NotImplementedError
            Within the transforms of torch.func, and for gradients of zoneout in ``eval()``.
        """
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            of = f" of {len(hx)}" if isinstance(hx, (tuple, list)) else ""
            raise TypeError(f"hx must be None or a pair (h0, c0) of tensors, got {type(hx).__name__}{of}")
        y, h, c, *cells = self._run(
            input, None if hx is None else [*hx], lengths, resets, mask, padding_output, return_cells
        )
        return (y, (h, c), *cells)
