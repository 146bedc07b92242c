"""A page that shows the inside of a network while it reads one sequence: `quadgate.explore`."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _check
from .._pickling import Slotted
from ._data import read_labels, read_outputs, read_x
from ._gradients import gradients
from ._layers import chain_of, look
from ._page import check_size, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from ..lstm import LSTM
    from ..rnn import RNN
    from ..train import Sequential

__all__ = ["Page", "explore"]


class Page(Slotted):
    """A page that `quadgate.explore` has written. In a notebook it shows itself.

    Attributes
    ----------
    path : pathlib.Path
        The file.
    """

    __slots__ = ("_text", "path")

    def __init__(self, path: Path, text: str) -> None:
        self.path, self._text = path, text

    def __repr__(self) -> str:
        return f"Page({str(self.path)!r}, {len(self._text.encode()) / 1e6:.2f} MB)"

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, which can neither reach the notebook nor the network."""
        source = html.escape(self._text, quote=True)
        style = "width: 100%; height: 900px; border: 1px solid #8888"
        return f'<iframe title="quadgate explore" sandbox="allow-scripts" style="{style}" srcdoc="{source}"></iframe>'


def explore(
    net: LSTM | RNN | Sequential,
    x: ArrayLike,
    labels: str | ArrayLike | None = None,
    out: str | os.PathLike[str] = "page.html",
    *,
    outputs: Sequence[int] | None = None,
) -> Page:
    """Write an interactive HTML page about how a network reads one sequence.

    The page has the input with its labels, a heat map of every unit's h, c and gates, the traces of one unit with its
    strongest inputs, the saturation of gates and the length of memory, the gradients of chosen outputs with respect to
    the inputs, a search for spans where the same units are active, and the norms of the gradients by step and layer. It
    is one file without references to others.

    Parameters
    ----------
    net : LSTM, RNN or train.Sequential
        Without quantised weights, which have no gradients. All options act as in inference: nothing is dropped, and
        zoneout is its mean. The initial state is zeros.
    x : array (T, I), or (T, 1, I)
        One sequence, (1, T, I) if ``net.batch_first``. A Sequential takes (T, I) or (1, T, I), or integers (T,) or
        (1, T) if it begins with an Embedding.
    labels : str of T letters, list of T str, or array of int (T,); optional
        Name of each step. A Sequential that begins with an Embedding shows its integers if there are none.
    out : str or path
        File to write, without it ``page.html`` in the working directory. An existing one is replaced.
    outputs : list of int, optional
        Columns of the output, at most 8, whose gradients the page offers, beside the whole output of a step; by default
        the two that vary most.

    Returns
    -------
    Page
        With ``path`` and, for notebooks, ``_repr_html_``.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or there is too much for a page.
    OSError
        If the file cannot be written.

    Notes
    -----
    Numbers on the page have 16 bits, or 8 bits if there are more than a million of them. The gradients of an output s
    are the norms of ds/dx_t over the columns of x. They take one backward pass for each output and step; of long
    sequences or large networks only some steps are done.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> page = qg.explore(qg.LSTM(3, 8, rng=0), np.eye(3, dtype=np.float32)[[0, 1, 2, 1]], "abcb", "page.html")
    >>> page.path.name
    'page.html'
    """
    chain = chain_of(net)
    try:
        path = Path(out)
    except TypeError:
        raise TypeError(f"out must be the path of a file, got {_check.shown(out)}") from None
    x_, mask, ids = read_x(net, x)
    check_size(chain, x_.shape[1])
    names = read_labels(labels, x_.shape[1], ids)
    seen = look(chain, x_, mask)
    columns = read_outputs(outputs, seen.y)
    text = write(repr(net), names, seen, gradients(chain, x_, mask, seen, columns))
    path.write_text(text, "utf-8")
    return Page(path, text)


explore.__module__ = "quadgate"  # the name that documentation shows
