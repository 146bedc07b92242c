"""PyTorch modules that run and train on quadgate's core: drop-in for ``torch.nn.LSTM`` and ``torch.nn.RNN`` on CPUs.

>>> import torch, quadgate.torch
>>> lstm = quadgate.torch.LSTM(8, 16, batch_first=True)
>>> y, (h, c) = lstm(torch.zeros(3, 10, 8))

Constructor, parameters, state dicts and results are torch's; quadgate's own options are keywords behind them. It needs
the package torch, 2.4 or newer (tested with 2.4.1 and 2.13), which nothing else of quadgate imports.
"""

from __future__ import annotations

try:
    from torch.library import custom_op as _  # noqa: F401  # torch 2.4
except ImportError as error:
    raise ImportError(f"quadgate.torch needs PyTorch 2.4 or newer: pip install torch ({error})") from error

from .lstm import LSTM
from .rnn import RNN

__all__ = ["LSTM", "RNN"]
