"""The whole LSTM family in plain NumPy float64: the specification of quadgate, and the judge of its tests.

**The cell.** One step of one layer, for one row (``s`` is the logistic function, ``*`` between vectors is
elementwise)::

    i = s(W_i x + R_i h' + b_i)          input gate           h', c': the previous step's h and c
    f = s(W_f x + R_f h' + b_f)          forget gate
    g = tanh(W_g x + R_g h' + b_g)       cell candidate
    o = s(W_o x + R_o h' + b_o)          output gate
    c = f * c' + i * g
    h = o * tanh(c)

W_i, W_f, W_g, W_o lie one below the other in ``weight_ih`` (4H, I), R_* in ``weight_hh`` (4H, H), b_* in ``bias``
(4H,). This is the cell of Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, with the
forget gate of Gers, Schmidhuber and Cummins, "Learning to Forget: Continual Prediction with LSTM", Neural Computation
12(10), 2000. The gradient is the full one through all time steps, as in Graves and Schmidhuber, "Framewise Phoneme
Classification with Bidirectional LSTM", Neural Networks 18(5-6), 2005, not the truncated one of 1997.

**The cell with every option.** h has R columns, H without a projection. ``s, t, u`` are the three activations; k_gate,
k_cell, k_proj hold a value between -clip and clip, or are not there; N takes the mean off a row and divides by
sqrt(var + eps), var being the mean of the squares; what a network does not have is left out of its equations::

    q = W x        r = (R * dw) (h' * dr)               dr, dw: multipliers by recurrent dropout and weight drop
    q = norm_ih * N(q)    r = norm_hh * N(r)            layer norm, over all 4H together
    a = q + r + b = (a_i, a_f, a_g, a_o)
    a_i += p_i * c'       a_f += p_f * c'               peepholes
    i = s(k_gate(a_i))    f = s(k_gate(a_f))  or, coupled, 1 - i    g = t(k_gate(a_g))
    n = k_cell(f * c' + i * g)
    n = norm_c[0] * N(n) + norm_c[1]                    layer norm "carried", over H
    a_o += p_o * n        o = s(k_gate(a_o))
    v = n, or for layer norm "pre" norm_c[0] * N(n) + norm_c[1]
    m = o * u(k_gate(v))
    z = k_proj(W_hr m), or m without a projection
    h = zh * h' + (1 - zh) * z    c = zc * c' + (1 - zc) * n        zoneout

In training zh and zc are masks, 1 where the old value is kept, and dr and dw are 0 where something was dropped and
1 / (1 - p) elsewhere; for inference zh and zc are the probabilities, dr and dw are 1. An Elman network is one line,
h = s(a), with one gate instead of four; its c has no columns.

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

**Backward** of the cell, from the gradients ``dh`` and ``dc`` that reach a step (an ``a`` is the argument of the gate's
function)::

    do = dh * tanh(c)                    dc = dc + dh * o * (1 - tanh(c)^2)
    di = dc * g      df = dc * c'      dg = dc * i
    da_i = di * i (1 - i)    da_f = df * f (1 - f)    da_g = dg * (1 - g^2)    da_o = do * o (1 - o)
    dx = W^T da      dh' = R^T da      dc' = dc * f
    dW = sum over steps and rows of da x^T,    dR = the same of da h'^T,    db = the same of da

With the options each line of the step forward has one that mirrors it. A clip lets no gradient through where the value
lies outside (on the bound it does, but for proj_clip); relu, hard_sigmoid and thresholded_relu have slope 0 at their
kinks, leaky_relu and elu alpha. Coupled gates leave the f rows of the weights without a part in f, and with a gradient
of 0; but with layer norm those rows still count in the mean and variance of all 4H, and get the gradient of that.

**Sequences.** Arrays are batched and time-major: x (T, B, I), y (T, B, O), states h (L*D, B, R) and c (L*D, B, H).
Layers and directions are named and ordered as in PyTorch: row ``layer * D + direction`` of a state, ``_reverse`` behind
the names of the second direction (a network that only runs backwards has names without it).
A row of length n takes part in steps 0 .. n-1 only: elsewhere its output is 0 and its state stays as it is, so that the
reverse direction starts at step n-1, and a row of length 0 ends in its initial state.
A reset at (t, b) cuts row b between t - 1 and t, for h and for c: forward, step t starts from zeros, t = 0 included, so
that the initial state is not used; backwards, step t - 1 starts from zeros, and nothing happens at t = 0 or where
step t lies past the row's end. The final state is never cut. No gradient crosses a cut.

**Layers.** A layer merges its directions' outputs a and b: concat(a, b), a + b, a * b or (a + b) / 2. With a shortcut,
layers from the second on (input in, output out) hand on: residual, out + in; highway, t * out + (1 - t) * in with
t = s(W in + b); dense, concat(in, out), which is the next layer's input but not y. Dropout, in training only, stands
between layers: out of layer k, shortcut included, is set to 0 where its mask is True and divided by 1 - p elsewhere;
``in`` is what came out of that, and in a dense network the part of ``in`` that is handed on is not dropped again.

**On the way.** ``tape.cells`` are the last layer's c at every step, after zoneout, and have a gradient. ``Grads`` has
the norms of the gradients at every step, 0 past a row's length: ``dh_norm`` that of the h which a step leaves, y's part
included; ``dc_norm`` that of the c which it leaves (of everything that follows, whether zoneout kept c or not,
``dcells`` included) plus what reaches n through m, by way of v and of o's peephole. Without zoneout that is the
gradient of n, after the carried norm; in the plain cell dc + dh * o * (1 - tanh(c)^2). An Elman network's is 0.

Everything is computed in float64, or in NumPy's ``longdouble`` where an argument is of that type.
"""

from __future__ import annotations

from .activations import Activation, activation, sigmoid, slope
from .layer import LayerTape
from .network import Grads, Tape, backward, forward

__all__ = ["Activation", "Grads", "LayerTape", "Tape", "activation", "backward", "forward", "sigmoid", "slope"]
