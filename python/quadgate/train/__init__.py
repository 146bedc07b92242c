"""Training of whole models: what surrounds an LSTM.

>>> import numpy as np, quadgate as qg
>>> from quadgate import train
>>> model = train.Sequential([train.Embedding(1000, 64), qg.LSTM(64, 128), train.FinalState(), train.Dense(128, 10)])
>>> model.compile(loss="softmax_cross_entropy", optimizer=train.Adam(4e-3, clip_norm=1.0))
>>> x, y = np.zeros((32, 50), np.int64), np.zeros(32, np.int64)
>>> history = model.fit(x, y, epochs=2)
>>> model.predict(x).shape
(32, 10)

Arrays are batch first here, (B, T, ...). The list is closed: the layers `Embedding`, `Dense`, `Dropout`, `FinalState`,
`Masking` around `quadgate.LSTM` and `quadgate.RNN`, the losses of `Loss`, the optimizers `SGD`, `Adam` and `AdamW`, a
`Sequential` model of them with `generate` and `beam_search`, and `rtrl`. There is no automatic differentiation. CTC,
CRF, attention and recomputation of the tape will not come.
"""

from __future__ import annotations

from ._callbacks import Callback, EarlyStopping
from ._files import load
from ._generate import Beam, beam_search, generate
from ._history import History
from ._keras import load_keras
from ._layer import Context, Layer
from ._layers import Dense, Dropout, Embedding
from ._losses import Loss
from ._masking import Masking
from ._model import Sequential
from ._optimizers import SGD, Adam, AdamW, Optimizer
from ._recurrent import FinalState, Recurrent
from ._rtrl import RTRL, rtrl
from ._schedules import WarmupCosine
from ._stream import ModelStream

__all__ = [
    "RTRL",
    "SGD",
    "Adam",
    "AdamW",
    "Beam",
    "Callback",
    "Context",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "FinalState",
    "History",
    "Layer",
    "Loss",
    "Masking",
    "ModelStream",
    "Optimizer",
    "Recurrent",
    "Sequential",
    "WarmupCosine",
    "beam_search",
    "generate",
    "load",
    "load_keras",
    "rtrl",
]
