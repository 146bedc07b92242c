"""The class LSTM: every option that it has; how it runs is in `_lstm_calls`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check
from ._lstm_calls import Grads, LSTMCalls
from ._options import Options
from ._properties import LSTMProperties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from ._options import Activation

__all__ = ["LSTM", "Grads"]


class LSTM(LSTMProperties, LSTMCalls):
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
        Whether there are biases; one for each gate and unit, where PyTorch keeps two and adds them.
    batch_first : bool
        Whether batched x and y are (B, T, ...) instead of (T, B, ...). States never are.
    bidirectional : bool
        Whether a second set of units reads the sequence backwards (D = 2) beside the first.
    dropout : float
        Probability of each number between two layers to be dropped, in training. Here and below what is kept is divided
        by 1 - p, and calls that do not train drop nothing.
    proj_size : int
        P, the columns that h is projected to, ``h = W_hr (o * tanh(c))``; 0 for no projection, where h has H columns.
    peephole : bool
        Whether i and f see c of the step before, and o the new c, each unit its own (Gers and Schmidhuber 2000).
    coupled : bool
        Whether f is 1 - i (Greff et al. 2017). The rows of f stay among the parameters, without effect.
    activations : (gates, cell, output)
        Functions of i, f and o, of g, and of c on its way out: "sigmoid", "tanh", "relu", "hard_sigmoid", "affine",
        "leaky_relu", "thresholded_relu", "scaled_tanh", "elu", "softsign" or "softplus". (name, alpha) or
        (name, alpha, beta) choose other numbers than ONNX's defaults, of which `quadgate.reference` has the formulas.
    cell_clip, proj_clip, gate_clip : float, optional
        Bounds, positive and negative: of c before anything uses it, of the projected h, of every activation's input.
    layer_norm : "pre" or "carried", optional
        Layer normalisation (Ba et al. 2016) of the two products W_ih x and W_hh h over all 4H columns, and of c over H:
        on its way out only ("pre", where c itself is carried on), or before all that uses it ("carried").
    layer_norm_eps : float
        Added to the variance.
    recurrent_dropout : float
        Probability of each column of h to be dropped on its way into W_hh, in training; drawn for each row, once for
        the whole sequence (Gal and Ghahramani 2016).
    weight_drop : float
        Probability of each element of W_hh to be dropped, in training; drawn once a call (Merity et al. 2018).
    zoneout : (zh, zc)
        Probabilities of each number of h and of c to stay for a step as it was, in training (Krueger et al. 2017).
        Otherwise h and c are the mean of old and new, weighted so.
    reverse : bool
        Whether the one direction reads the sequence backwards; y stays in the order of x.
    merge : "concat", "sum", "mul" or "mean"
        How the two directions are joined in y, and in what the next layer reads.
    shortcut : "residual", "highway" or "dense", optional
        What leads past every layer but the first: its input is added to its output (He et al. 2016), or mixed in by a
        learned gate (Srivastava et al. 2015), or the layer above reads both, side by side (Huang et al. 2017).
    initialization : "pytorch" or "keras"
        How the parameters begin. As in PyTorch: all uniform between -1/sqrt(H) and 1/sqrt(H). As in Keras: weight_ih
        uniform by Glorot, weight_hh orthogonal, biases zeros with ones for f. In both gains of norms begin as 1, their
        biases as 0, and a highway's bias as -1.
    forget_bias : float, optional
        What the biases of f begin with, whatever the scheme (Jozefowicz et al. 2015).
    dtype : float32 or float64
        Type of the parameters, of the arithmetic, and of every result.
    rng : None, int or numpy.random.Generator
        Where the initial parameters come from, and then the masks of what is dropped in training, unless `forward` is
        given another. One seed gives the same network in both types, up to rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what is described above, or two make no sense together; the message names them.
    MemoryError
        If the network is too large.

    Notes
    -----
    Arrays may be anything that NumPy can read as real numbers: lists, other types and byte orders, non-contiguous or
    read-only arrays, and whatever has ``__array__`` or ``__dlpack__``. They are converted to the network's type. That
    includes float64 into a float32 network, since float64 is what NumPy makes unless told otherwise. Arrays of the
    right type whose last axis is contiguous are read in place. Complex numbers, bools, strings, objects and masked
    arrays raise TypeError; wrong shapes raise ValueError. NaN and infinity pass through as IEEE arithmetic has them.

    Results do not depend, to the last bit, on the batch that a row is in, on the number of threads, or on how a
    sequence was cut into calls that pass the state on. One object may be used from many threads at once.

    What the options are called elsewhere ("-" where there is none):

    ================= ============== ================= ============= ====================== ============= ==============
    quadgate          PyTorch        Keras             ONNX          TensorFlow 1           oneDNN        cuDNN
    ================= ============== ================= ============= ====================== ============= ==============
    num_layers        num_layers     -                 -             MultiRNNCell           weights' axis numLayers
    bias              bias           use_bias          B             -                      bias          biasMode
    batch_first       batch_first    always            layout        not time_major         tag ntc       layout
    bidirectional     bidirectional  Bidirectional     direction     bidirectional_..._rnn  direction     dirMode
    merge             -              merge_mode        -             -                      direction     -
    reverse           -              go_backwards      direction     TimeReversedFusedRNN   direction     -
    proj_size         proj_size      -                 -             num_proj               weights_      projSize
                                                                                            projection
    proj_clip         -              -                 -             proj_clip              -             -
    cell_clip         -              -                 -             cell_clip              -             RNNSetClip
    gate_clip         -              -                 clip          -                      -             -
    peephole          -              -                 P             use_peepholes          weights_      -
                                                                                            peephole
    coupled           -              -                 input_forget  CoupledInputForgetGate -             -
    activations       -              activation,       activations   activation             -             -
                                     recurrent_...
    layer_norm        -              -                 -             LayerNormBasic         -             -
    layer_norm_eps    -              -                 -             -                      -             -
    dropout           dropout        -                 -             output_keep_prob       -             dropoutDesc
    recurrent_dropout -              recurrent_dropout -             state_keep_prob        -             -
    weight_drop       -              -                 -             -                      -             -
    zoneout           -              -                 -             -                      -             -
    shortcut          -              -                 -             ResidualWrapper,       -             -
                                                                     HighwayWrapper
    initialization    -              ..._initializer   -             initializer            -             -
    forget_bias       -              unit_forget_bias  -             forget_bias            -             -
    lengths           PackedSequence mask              sequence_lens sequence_length        -             seqLengthArray
    resets            -              -                 -             -                      -             -
    return_cells      -              -                 -             -                      -             -
    trace             -              -                 -             -                      -             -
    ================= ============== ================= ============= ====================== ============= ==============

    Not all of these are quite the same. Keras's ``dropout`` drops what a layer reads, once for the whole sequence, and
    its ``go_backwards`` returns y in the order of reading; its ``merge_mode`` calls the mean "ave". oneDNN can sum two
    directions or concatenate them. TensorFlow's cells are named without ``LSTMCell``: CoupledInputForgetGate has
    i = 1 - f instead, LayerNormBasic normalises gate by gate, and ``forget_bias`` is added in every call. Its
    ``..._keep_prob`` are DropoutWrapper's, 1 - p, the second with ``variational_recurrent``. ONNX keeps the numbers of
    activations apart, in ``activation_alpha`` and ``activation_beta``. cuDNN's functions begin with ``cudnn``.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> lstm = qg.LSTM(64, 128, rng=0)
    >>> y, (h, c) = lstm(np.zeros((10, 3, 64), np.float32))
    >>> y.shape, h.shape, c.shape
    ((10, 3, 128), (1, 3, 128), (1, 3, 128))
    """

    __slots__ = ()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        proj_size: int = 0,
        peephole: bool = False,
        coupled: bool = False,
        activations: Sequence[Activation] = ("sigmoid", "tanh", "tanh"),
        cell_clip: float | None = None,
        proj_clip: float | None = None,
        gate_clip: float | None = None,
        layer_norm: str | None = None,
        layer_norm_eps: float = 1e-5,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        zoneout: tuple[float, float] = (0.0, 0.0),
        reverse: bool = False,
        merge: str = "concat",
        shortcut: str | None = None,
        initialization: str = "pytorch",
        forget_bias: float | None = None,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        given: Any = {
            "bias": bias,
            "batch_first": batch_first,
            "bidirectional": bidirectional,
            "dropout": dropout,
            "proj_size": proj_size,
            "peephole": peephole,
            "coupled": coupled,
            "activations": activations,
            "cell_clip": cell_clip,
            "proj_clip": proj_clip,
            "gate_clip": gate_clip,
            "layer_norm": layer_norm,
            "layer_norm_eps": layer_norm_eps,
            "recurrent_dropout": recurrent_dropout,
            "weight_drop": weight_drop,
            "zoneout": zoneout,
            "reverse": reverse,
            "merge": merge,
            "shortcut": shortcut,
            "initialization": initialization,
            "forget_bias": forget_bias,
            "dtype": _check.float_type(dtype),
        }
        self._create(Options(input_size, hidden_size, num_layers, **given), rng)
