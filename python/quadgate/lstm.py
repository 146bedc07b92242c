"""The class LSTM; all arithmetic is in the compiled core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, SupportsIndex, overload

import numpy as np

from . import _run
from ._check import ZERO
from ._network import Network
from ._options import Option
from ._results import LSTMGrads, Tape
from .stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ._options import Activation

    Array = NDArray[Any]
    State = tuple[Array, Array]
    StateLike = tuple[ArrayLike | None, ArrayLike | None]

__all__ = ["LSTM"]


class LSTM(Network):
    """A long short-term memory network, with ``torch.nn.LSTM``'s arguments, shapes and gate order (i, f, g, o).

    Parameters
    ----------
    input_size : int
        I, the features of the input.
    hidden_size : int
        H, the units of each layer and direction.
    num_layers : int
        L, how many layers run one on top of the other.
    bias : bool
        True for biases; one for each gate and unit (PyTorch keeps two and adds them).
    batch_first : bool
        True if batched x and y are (B, T, ...) instead of (T, B, ...). States never are.
    bidirectional : bool
        True if a second set of units reads the sequence backwards (D = 2) beside the first.
    dropout : float
        Probability of each number between two layers to be dropped, in training. Here and below the others are divided
        by 1 - p, and calls that do not train drop nothing. It has no effect with one layer, which is warned of.
    proj_size : int
        P, the columns that h is projected to, ``h = W_hr (o * tanh(c))``; 0 for no projection: h has H columns then. P
        may be H or more, which PyTorch refuses.
    peephole : bool
        True if i and f see c of the step before, and o the new c, each unit its own (Gers and Schmidhuber 2000).
    coupled : bool
        True if f is 1 - i (Greff et al. 2017). The rows of f stay among the parameters, without effect but for the mean
        and variance of ``layer_norm``.
    activations : (gates, cell, output)
        Functions of i, f and o, of g, and of c on its way out: "sigmoid", "tanh", "relu", "hard_sigmoid", "affine",
        "leaky_relu", "thresholded_relu", "scaled_tanh", "elu", "softsign" or "softplus". (name, alpha) or
        (name, alpha, beta) choose other numbers than ONNX's defaults, of which `quadgate.reference` has the formulas.
    cell_clip, proj_clip, gate_clip : float, optional
        Bounds, positive and negative: of c before anything uses it, of the projected h, of every activation's input.
    layer_norm : "output" or "cell", optional
        Layer normalisation (Ba et al. 2016) of the two products W_ih x and W_hh h over all 4H columns, and of c over H:
        only on its way to h ("output"), or wherever it is used, in the next step too ("cell").
    layer_norm_eps : float
        Constant added to the variance for numerical stability.
    recurrent_dropout : float
        Probability of each column of h to be dropped on its way into W_hh, in training; drawn for each row, once for
        the whole sequence (Gal and Ghahramani 2016).
    weight_drop : float
        Probability of each element of W_hh to be dropped, in training; drawn once a call (Merity et al. 2018).
    zoneout : (zh, zc)
        Probabilities of each number of h and of c to stay for a step as it was, in training (Krueger et al. 2017).
        Otherwise h and c are the mean of old and new, weighted so.
    reverse : bool
        True if the one direction reads the sequence backwards; y stays in the order of x.
    merge : "concat", "sum", "mul" or "mean"
        Way to join the two directions in y and in the next layer's input.
    shortcut : "residual", "highway" or "dense", optional
        Connection past every layer but the first: its input is added to its output (He et al. 2016), or mixed in by a
        learned gate (Srivastava et al. 2015), or the layer above reads both, side by side (Huang et al. 2017).
    initialization : "pytorch" or "keras"
        Scheme of the first parameters. As in PyTorch: all uniform between -1/sqrt(H) and 1/sqrt(H). As in Keras:
        weight_ih uniform by Glorot, weight_hh orthogonal, biases zeros with ones for f. In both gains of norms begin as
        1, their biases as 0, and a highway's bias as -1.
    forget_bias : float, optional
        First value of the biases of f, whatever the scheme (Jozefowicz et al. 2015).
    dtype : float32 or float64
        Type of the parameters, of the arithmetic, and of every result.
    rng : None, int or numpy.random.Generator
        Source of the initial parameters, and then of the masks drawn in training, unless `forward` is given another.
        One seed gives the same network in both types, up to rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, or two make no sense together; the message names them.
    MemoryError
        If the network is too large.

    Notes
    -----
    Arrays may be anything that NumPy can read as real numbers: lists, other types and byte orders, non-contiguous or
    read-only arrays, and whatever has ``__array__`` or ``__dlpack__``. They are converted to the network's type. That
    includes float64 into a float32 network, since NumPy makes float64 unless told otherwise. bfloat16 and float16 are
    read exactly; a float64 number beyond float32's range becomes infinite, with NumPy's warning of an overflow. Arrays
    of the right type whose last axis is contiguous are read in place. Complex numbers, bools, strings, objects and
    masked arrays raise TypeError; wrong shapes raise ValueError. NaN and infinity pass through as IEEE arithmetic has
    them; denormal numbers are taken for zeros.

    Results do not depend, to the last bit, on the batch that a row is in, on the number of threads, or on how a
    sequence was cut into calls that pass the state on. One object may be used from many threads at once.

    docs/options.md has each option's equation, picture and cost, and its names in PyTorch, Keras, ONNX, TensorFlow 1,
    oneDNN and cuDNN.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> lstm = qg.LSTM(64, 128, rng=0)
    >>> y, (h, c) = lstm(np.zeros((10, 3, 64), np.float32))
    >>> y.shape, h.shape, c.shape
    ((10, 3, 128), (1, 3, 128), (1, 3, 128))
    """

    __slots__ = ()
    __module__ = "quadgate"  # the name that pickles and errors show

    _elman = False

    proj_size = Option[int]("P, the columns of the projected h; 0 without a projection.")
    peephole = Option[bool]("True if the gates see the cell.")
    coupled = Option[bool]("True if f is 1 - i.")
    activations = Option["tuple[Activation, Activation, Activation]"](
        "Functions of the gates, of the cell candidate, and of the cell on its way out."
    )
    cell_clip = Option["float | None"]("Bound of c.")
    proj_clip = Option["float | None"]("Bound of the projected h.")
    gate_clip = Option["float | None"]("Bound of every activation's input.")
    layer_norm = Option["str | None"]('Kind of layer normalisation: "output", "cell" or None.')
    layer_norm_eps = Option[float]("Constant added to the variance for numerical stability.")
    zoneout = Option["tuple[float, float]"]("Probabilities of h and of c to stay as they are for a step in training.")
    forget_bias = Option["float | None"]("First value of the forget gate's bias, if it was asked for.")

    def __init__(
        self,
        input_size: SupportsIndex,
        hidden_size: SupportsIndex,
        num_layers: SupportsIndex = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        proj_size: SupportsIndex = 0,
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
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        arguments = dict(locals())
        del arguments["self"], arguments["rng"]
        self._create(arguments, rng)

    @overload
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: Literal[False] = False,
        out: Array | None = None,
    ) -> tuple[Array, State]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: Literal[True],
        out: Array | None = None,
    ) -> tuple[Array, State, Array]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: bool,
        out: Array | None = None,
    ) -> tuple[Array, State] | tuple[Array, State, Array]: ...
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: bool = False,
        out: Array | None = None,
    ) -> Any:
        """Run the network for inference: stochastic options use their expected value (no dropout; zoneout averages).

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if ``batch_first``, or (T, I) without a batch
            The input sequences.
        state : (h0, c0), arrays (L*D, B, R) and (L*D, B, H), or (L*D, R) and (L*D, H) without a batch; optional
            The initial state; zeros if it is not given, or for the one of the two that is None. R is ``proj_size``, or
            H without a projection.
        lengths : array of int (B,), optional
            Number of steps of each row, 0 to T, in any order; all T if it is not given. Floats will do if they are
            whole. Steps past the length are ignored and y is zero there. The final state is that of the row's last
            step, and the reverse direction starts there.
        resets : array of bool, or of ints 0 and 1, (T, B), (B, T) if ``batch_first``, or (T,) without a batch; optional
            True at t starts a row anew before its step t: nothing passes between steps t-1 and t, in either direction.
            At t = 0 that replaces the row's initial state by zeros, except in a direction that reads backwards. At a
            masked step it acts as at any other; past the row's length it does not.
        mask : array of bool, or of ints 0 and 1, of the shape of ``resets``; optional
            False for steps to skip, as in Keras: their values are ignored, and the state stays as it is. A step counts
            if it is neither masked nor past the row's length. Rows padded on the right cost no more than with
            ``lengths``; other masks cost a copy of x and of y.
        padding_output : "zero" or "last"
            y at masked steps: 0, or as in Keras what it was after the direction's last step that counted. Ahead of the
            first such step that is the initial h (0 with a residual or highway shortcut), and after a reset 0. It has
            no effect without a mask; "last" needs ``merge="concat"`` in a bidirectional network.
        return_cells : bool
            True to return ``cells`` too.
        out : array of y's shape and the network's type, optional
            Filled and returned instead of a new y. It must be writable and share no memory with the other arguments.

        Returns
        -------
        y : array (T, B, O), (B, T, O) or (T, O)
            Last layer's output at every step; ``out`` itself if that was given. O is D*R, forward direction first, or R
            if ``merge`` joins the directions otherwise.
        (h, c) : arrays of the state's shapes
            Final states. Passed on to the next call they continue the sequence.
        cells : array (T, B, D*H), (B, T, D*H) or (T, D*H)
            Only with ``return_cells``: last layer's c at every step, at masked ones the c before them, 0 past a row's
            length.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        if mask is None and padding_output is ZERO:
            core = self._snapshot.forward
            result = core(x, state, lengths, out, resets, return_cells)
            if result is not None:
                return result
        return _run.infer(self, x, state, lengths, out, resets, return_cells, None, mask, padding_output)

    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: bool = False,
        trace: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Array, State, Tape]:
        """Run the network for training: draw masks, and record what `backward` needs on a tape.

        Parameters
        ----------
        x, state, lengths, resets, mask, padding_output
            As in `__call__`.
        return_cells : bool
            True to have the last layer's c at every step in ``tape.cells``.
        trace : bool
            True to have a `Trace` in ``tape.trace``: the gates and cells of every step, and after `backward` the
            norms of their gradients. It costs a copy of them all.
        rng : int or numpy.random.Generator, optional
            Source of the masks of ``dropout``, ``recurrent_dropout``, ``weight_drop`` and ``zoneout``; the network's
            own generator if it is not given. They are drawn for all steps, masked ones too, and do not depend on the
            number of threads.

        Returns
        -------
        y, (h, c)
            As in `__call__`, and without masks equal to its results to the last bit.
        tape : Tape
            For `backward`, any number of times, with the parameters of this moment.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        if mask is None and padding_output is ZERO and trace is False and rng is None and not self._mask_plan:
            core = self._snapshot.forward_tape
            result = core(x, state, lengths, resets, return_cells, None)
            if result is not None:
                if len(result) == 4:
                    return result[0], result[1], Tape(result[3], result[2])
                y, end, tape = result
                return y, end, Tape(tape)
        return _run.train(self, x, state, lengths, resets, return_cells, trace, rng, None, mask, padding_output)

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dstate: tuple[ArrayLike | None, ArrayLike | None] | None = None,
        *,
        dcells: ArrayLike | None = None,
        input_grad: bool = True,
        state_grad: bool = True,
        out: Mapping[str, Array] | None = None,
        accumulate: bool = False,
    ) -> LSTMGrads:
        """Return the gradients of a loss from its gradients with respect to y, the final states, and the cells.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array of y's shape, optional
            Gradient of y; zeros if it is not given. One of the three gradients must be. At masked steps it is ignored,
            or with ``padding_output="last"`` added to the step whose y is repeated.
        dstate : (dh, dc), each array of its state's shape or None; optional
            Gradients of the final states; zeros if they are not given.
        dcells : array of the cells' shape, optional
            Gradient of ``tape.cells``; zeros if it is not given.
        input_grad : bool
            False to leave out the gradient of x: `LSTMGrads.x` is None then.
        state_grad : bool
            False to leave out the gradients of the initial states, a product for one step of each layer:
            `LSTMGrads.h0` and `LSTMGrads.c0` are None then.
        out : mapping from every parameter's name to an array of its shape and the network's type, optional
            Filled with the gradients of the parameters, instead of new arrays. They must be writable and share no
            memory with each other or with the other arguments. If that is the ``params`` of an earlier result, it is
            that of this one, too.
        accumulate : bool
            True to add to the contents of ``out``, rather than to overwrite them.

        Returns
        -------
        LSTMGrads

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value, or there is no gradient to start from.
        """
        result = _run.backward(self, tape, dy, dstate, dcells, input_grad, state_grad, out, accumulate)
        return tuple.__new__(LSTMGrads, result)  # _make takes longer

    def stream(self, batch_size: SupportsIndex = 1) -> Stream[LSTM]:
        """Return a `Stream` over this network: its state kept inside, zeros at first, one step or chunk at a time.

        Parameters
        ----------
        batch_size : int
            B, the number of rows that run side by side.

        Raises
        ------
        ValueError
            If the network is bidirectional or reverse: it starts at the end, which a stream does not have.
        """
        return Stream(self, batch_size)
