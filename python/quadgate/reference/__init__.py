"""The LSTM family in plain NumPy float64: the specification of quadgate, and the reference of its tests.

**The cell.** One step of one layer, for one row (``s`` is the logistic function, ``*`` between vectors is
elementwise)::

    i = s(W_i x + U_i h' + b_i)          input gate           h', c': the previous step's h and c
    f = s(W_f x + U_f h' + b_f)          forget gate
    g = tanh(W_g x + U_g h' + b_g)       cell candidate
    o = s(W_o x + U_o h' + b_o)          output gate
    c = f * c' + i * g
    h = o * tanh(c)

``weight_ih`` (4H, I) stacks W_i, W_f, W_g and W_o along its first axis, ``weight_hh`` (4H, H) the U_*, and ``bias``
(4H,) the b_*. This is the cell of Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997,
with the forget gate of Gers, Schmidhuber and Cummins, "Learning to Forget: Continual Prediction with LSTM", Neural
Computation 12(10), 2000. The gradient is exact, through all time steps, as in Graves and Schmidhuber, "Framewise
Phoneme Classification with Bidirectional LSTM", Neural Networks 18(5-6), 2005. It is not the truncated one of 1997.

**The cell with every option.** h has R columns: P with a projection, otherwise H. ``s, t, u`` are the three
activations. k_gate, k_cell and k_proj clip a value to [-clip, clip]. N subtracts the mean of a row and divides by
sqrt(var + eps), where var is the mean of the squared deviations. A network leaves the terms of options that it does not
use out of its equations::

    q = W x        r = (U * dw) (h' * dr)               dr, dw: multipliers of recurrent dropout and weight drop
    q = norm_ih * N(q)    r = norm_hh * N(r)            layer norm, over all 4H together
    a = q + r + b = (a_i, a_f, a_g, a_o)
    a_i += p_i * c'       a_f += p_f * c'               peepholes
    i = s(k_gate(a_i))    f = s(k_gate(a_f))  or, coupled, 1 - i    g = t(k_gate(a_g))
    c_new = k_cell(f * c' + i * g)
    c_new = norm_c[0] * N(c_new) + norm_c[1]            layer norm "cell", over H
    a_o += p_o * c_new        o = s(k_gate(a_o))
    v = c_new, or for layer norm "output" norm_c[0] * N(c_new) + norm_c[1]
    m = o * u(k_gate(v))
    z = k_proj(W_hr m), or m without a projection
    h = zh * h' + (1 - zh) * z    c = zc * c' + (1 - zc) * c_new    zoneout

In training, zh and zc are masks (1 keeps the old value), and dr and dw are 0 for dropped elements and 1 / (1 - p) for
the others. In inference, zh and zc are the probabilities, and dr and dw are 1. An Elman network has a single gate,
h = s(a), and its c has no columns.

- Peepholes: Gers and Schmidhuber, "Recurrent Nets that Time and Count", IJCNN 2000.
- Projection: Sak, Senior and Beaufays, "Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale
  Acoustic Modeling", Interspeech 2014.
- Coupled gates: Greff, Srivastava, Koutnik, Steunebrink and Schmidhuber, "LSTM: A Search Space Odyssey", 2015.
- Layer norm: Ba, Kiros and Hinton, "Layer Normalization", 2016.
- Zoneout: Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2016.
- Recurrent dropout, one mask for all steps: Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in
  Recurrent Neural Networks", 2016. Weight drop: Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language
  Models", 2017.
- Highway: Srivastava, Greff and Schmidhuber, "Highway Networks", 2015.
- Elman, "Finding Structure in Time", Cognitive Science 14(2), 1990.

**Backward** of the cell, from the gradients ``dh`` and ``dc`` of the h and c that a step returns; a_* are the arguments
of the gates' activations::

    do = dh * tanh(c)                    dc = dc + dh * o * (1 - tanh(c)^2)
    di = dc * g      df = dc * c'      dg = dc * i
    da_i = di * i (1 - i)    da_f = df * f (1 - f)    da_g = dg * (1 - g^2)    da_o = do * o (1 - o)
    dx = W^T da      dh' = U^T da      dc' = dc * f
    dW = sum over steps and rows of da x^T,    dU = the same of da h'^T,    db = the same of da

With options, each line of the forward step has a mirrored line in the backward step. A clip passes no gradient to
values outside its bounds; it passes the gradient of values on a bound, except for proj_clip. At their kinks relu,
hard_sigmoid and thresholded_relu have slope 0, leaky_relu and elu slope alpha. With coupled gates the f rows of the
weights do not influence f, and their gradient is 0. With layer norm those rows still enter the mean and variance over
all 4H, and receive the gradient of both.

**Sequences.** Arrays are batched and time-major: x (T, B, I), y (T, B, O), states h (L*D, B, R) and c (L*D, B, H).
Layers and directions are named and ordered as in PyTorch: row ``layer * D + direction`` of a state, and the suffix
``_reverse`` for the parameters of the second direction. A network with ``reverse=True`` has one direction and no
suffix. A row of length n is active in steps 0 .. n-1 only. In other steps its output is 0 and its state does not
change. So the reverse direction starts at step n-1, and the final state of a row of length 0 is its initial state. A
reset at (t, b) separates steps t - 1 and t of row b, for h and for c. In the forward direction step t starts from
zeros; at t = 0 the initial state is not used. In the reverse direction step t - 1 starts from zeros; a reset at t = 0,
or at a step past the row's end, has no effect. Without masked steps no reset follows a direction's last step, so the
final state is always that of a step. No gradient crosses a reset.

A mask (T, B) that is False at (t, b) makes that row inactive there, too: its state stays as it is. Resets at masked
steps act as at all others; past a row's length they do not. So those after the last active step of a direction change
its final state. ``cells`` repeats the c before them at masked steps. y is 0 there, or with ``padding_output="last"``
what it was after the last active step in the direction's own order; ahead of the first it is the initial h (0 with a
residual or highway shortcut, where y is not h), and after a reset 0. Gradients take the same ways back.

**Layers.** A layer merges its directions' outputs a and b: concat(a, b), a + b, a * b or (a + b) / 2. With a shortcut,
every layer from the second on (input in, output out) returns: residual, out + in; highway, t * out + (1 - t) * in with
t = s(W in + b); dense, concat(in, out), which is the next layer's input but not y. Dropout acts between layers, in
training only: the output of layer k, after its shortcut, is 0 where the mask is True and divided by 1 - p elsewhere.
The result is the next layer's ``in``. In a dense network the part of ``in`` that is passed on is not dropped again.

**Intermediate values.** ``tape.cells`` is the last layer's c at every step, after zoneout; `backward` accepts its
gradient as ``dcells``. ``Grads`` has the Euclidean norms of the gradients at every step, 0 past a row's length.
``dh_norm`` is the norm of the gradient of the h that a step returns, including the part from y. ``dc_norm`` is the norm
of the gradient of the c that a step returns (from later steps, with or without zoneout, and from ``dcells``) plus the
gradient that reaches c_new through m, by way of v and of the peephole of o. Without zoneout this sum is the gradient of
c_new after the norm of "cell"; in the plain cell it is dc + dh * o * (1 - tanh(c)^2). For an Elman network ``dc_norm``
is 0.

Arithmetic is float64, or NumPy's ``longdouble`` if an argument has that type.
"""

from __future__ import annotations

from .activations import Activation, activation, sigmoid, slope
from .layer import LayerTape
from .network import Grads, Tape, backward, forward

__all__ = ["Activation", "Grads", "LayerTape", "Tape", "activation", "backward", "forward", "sigmoid", "slope"]
