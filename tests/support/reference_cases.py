"""Networks with every option for the tests of the reference, and the check of their gradients by differences."""

from __future__ import annotations

from math import sqrt

import numpy as np
from quadgate import reference

REAL = np.longdouble  # of more than 64 bits on most machines: a step so small that none lands on a kink
EXTENDED = np.finfo(REAL).eps < 1e-17
STEP = 1e-8 if EXTENDED else 1e-5
CLOSE = {"rtol": 0, "atol": 1e-13}  # two float64 computations of some hundred terms of size 1, which round by 1e-16


class Problem:
    """A network with its data, gradients for everything that comes out, and masks for training, all of size about 1."""

    def __init__(
        self, seed=0, *, inputs=2, units=3, steps=3, batch=2, lengths=None, resets=None, train=True, **options
    ):
        rng = np.random.default_rng(seed)
        self.options, self.lengths, self.resets = options, lengths, resets
        layers, directions = options.get("num_layers", 1), 1 + options.get("bidirectional", False)
        elman, columns = "nonlinearity" in options, options.get("proj_size", 0) or units
        gates, cells = (1, 0) if elman else (4, units)
        self.layers, self.directions, self.columns = layers, directions, columns
        self.width = directions * columns if options.get("merge", "concat") == "concat" else columns
        self.params, below = {}, inputs
        for k in range(layers):
            for suffix in (f"_l{k}", f"_l{k}_reverse")[:directions]:
                self.params["weight_ih" + suffix] = rng.normal(size=(gates * units, below)) / sqrt(below)
                self.params["weight_hh" + suffix] = rng.normal(size=(gates * units, columns)) / sqrt(columns)
                if options.get("bias", True):
                    self.params["bias" + suffix] = rng.normal(size=gates * units)
                if options.get("proj_size"):
                    self.params["weight_hr" + suffix] = rng.normal(size=(columns, units)) / sqrt(units)
                if options.get("peephole"):
                    self.params["peephole" + suffix] = rng.normal(size=(3, units))
                if options.get("layer_norm"):
                    self.params["norm_ih" + suffix] = 1 + rng.normal(size=4 * units) / 2
                    self.params["norm_hh" + suffix] = 1 + rng.normal(size=4 * units) / 2
                    self.params["norm_c" + suffix] = rng.normal(size=(2, units)) / 2 + [[1], [0]]
            if k > 0 and options.get("shortcut") == "highway":
                self.params[f"weight_highway_l{k}"] = rng.normal(size=(self.width, self.width)) / sqrt(self.width)
                self.params[f"bias_highway_l{k}"] = rng.normal(size=self.width)
            below = self.width + (below if options.get("shortcut") == "dense" else 0)
        self.x = rng.normal(size=(steps, batch, inputs))
        h, c = ((layers * directions, batch, n) for n in (columns, cells))
        self.state, self.dstate = ((rng.normal(size=h), rng.normal(size=c)) for _ in range(2))
        self.dy = rng.normal(size=(steps, batch, self.width))
        self.dcells = rng.normal(size=(steps, batch, directions * cells))
        self.masks = None
        if train:
            zh, zc = options.get("zoneout", (0, 0))
            shapes = {"weight_drop": (gates * units, columns), "recurrent_dropout": (batch, columns)}
            shapes |= {"zoneout_h": (steps, batch, columns), "zoneout_c": (steps, batch, units)}
            chances = {k: options.get(k, 0.0) for k in ("weight_drop", "recurrent_dropout")}
            chances |= {"zoneout_h": zh, "zoneout_c": zc}
            self.masks = {
                f"{kind}_l{k}{direction}": rng.random(shapes[kind]) < p
                for k in range(layers)
                for direction in ("", "_reverse")[:directions]
                for kind, p in chances.items()
                if p > 0
            }
            if (p := options.get("dropout", 0.0)) > 0:
                for k in range(layers - 1):
                    self.masks[f"dropout_l{k}"] = rng.random((steps, batch, self.width)) < p

    def forward(self, params=None, x=None, state=None):
        params, x, state = params or self.params, self.x if x is None else x, state or self.state
        return reference.forward(params, x, state, self.lengths, resets=self.resets, masks=self.masks, **self.options)

    def loss(self, params, x, h0, c0):
        y, (h, c), tape = self.forward(params, x, (h0, c0))
        dh, dc = self.dstate
        return (y * self.dy).sum() + (h * dh).sum() + (c * dc).sum() + (tape.cells * self.dcells).sum()

    def size(self):
        """Return how large the loss is, had all its terms the same sign; infinity or NaN if the network explodes."""
        with np.errstate(over="ignore", invalid="ignore"):
            y, end, tape = self.forward()
            pairs = [(y, self.dy), *zip(end, self.dstate, strict=True), (tape.cells, self.dcells)]
            return float(sum(np.abs(a * d).sum() for a, d in pairs))

    def backward(self):
        tape = self.forward()[2]
        return reference.backward(self.params, tape, self.dy, self.dstate, dcells=self.dcells)

    def check_gradients(self, *, directions=None):
        """Hold every gradient against central differences: each element, or along some random directions.

        A step e leaves an error of e^2/6 times a third derivative and eps/e times the rounding of the loss's terms:
        with e = 1e-8 and 64 bits about 1e-14 and 1e-9 for 100 terms of size 1, with e = 1e-5 and 53 bits both about
        1e-9. 1e-6 leaves room for the derivatives of stacked normalisations; a wrong term is as large as the gradient.
        """
        rng = np.random.default_rng(1)
        grads = self.backward()
        allowed = 1e-6 + 100 * float(np.finfo(REAL).eps) / STEP * self.size()
        assert list(grads.params) == list(self.params)
        values = {"x": self.x, "h0": self.state[0], "c0": self.state[1], **self.params}
        values = {name: np.asarray(value, REAL) for name, value in values.items()}
        found = {"x": grads.x, "h0": grads.h0, "c0": grads.c0, **grads.params}
        for name, value in values.items():
            assert found[name].shape == value.shape
            ways = np.eye(value.size).reshape(value.size, *value.shape)
            if directions is not None:
                ways = rng.normal(size=(directions, *value.shape))
            for way in ways:
                both = []
                for sign in (1, -1):
                    moved = values | {name: value + sign * STEP * way}
                    x, h0, c0 = (moved.pop(k) for k in ("x", "h0", "c0"))
                    both.append(self.loss(moved, x, h0, c0))
                want, got = (both[0] - both[1]) / (2 * STEP), (found[name] * way).sum()
                assert abs(want - got) < allowed + 1e-6 * abs(want), f"{name}: {got}, expected {want}"
