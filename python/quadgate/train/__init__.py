"""Training of models around an LSTM."""

from __future__ import annotations

from ._layers import Context, Dense, Dropout, Embedding, FinalState, Layer, Recurrent
from ._losses import Loss
from ._optimizers import SGD, Adam, AdamW, Optimizer, WarmupCosine

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Context",
    "Dense",
    "Dropout",
    "Embedding",
    "FinalState",
    "Layer",
    "Loss",
    "Optimizer",
    "Recurrent",
    "WarmupCosine",
]
