"""Trained networks from files and other frameworks, and back, without those frameworks.

>>> import numpy as np, quadgate as qg
>>> np.savez("model.npz", **qg.LSTM(64, 128, 2, rng=0).state_dict(prefix="encoder."))
>>> for found in qg.io.networks("model.npz"):  # which networks are in this file?
...     print(found)
LSTM 'encoder': 64 -> 128, 2 layers
>>> lstm = qg.io.load("model.npz", name="encoder", batch_first=True)
>>> qg.io.save(lstm, "mine.safetensors")

A file's format is recognised by its content. Read are safetensors (with the package safetensors), PyTorch's files and
TorchScript's weights (without PyTorch), .npz, pickles of NumPy arrays, Keras's .keras, .weights.h5 and .h5 (with h5py),
and ONNX (with onnx). Nothing in a file is executed or imported, and no size is believed that its bytes do not confirm.

What neither a file nor a shape says is asked for: an error names the argument to give. Only defaults of the frameworks
are assumed unless given: of PyTorch's state dicts ``batch_first=False``, of Keras's weights without a configuration an
LSTM's activations and no ``go_backwards``, and in `from_keras` ``merge="concat"``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from . import _files, _found, _safetensors
from ._found import Found
from ._gates import from_gates, from_tensorflow1
from ._keras_weights import from_keras, refuse_others, to_keras

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..lstm import LSTM
    from ..rnn import RNN

    Array = NDArray[Any]
    File = str | os.PathLike[str] | IO[bytes]

__all__ = [
    "Found",
    "from_gates",
    "from_keras",
    "from_state_dict",
    "from_tensorflow1",
    "load",
    "networks",
    "read",
    "save",
    "to_keras",
    "to_torch",
]


def read(path: File, *, unknown: str = "error") -> dict[str, Array]:
    """Return the arrays of a file by name, whatever its format.

    Parameters
    ----------
    path : str, path or binary file
        The file, or one that is open, which is read from where it is. Its format is that of its content, whatever its
        suffix says.
    unknown : "error" or "skip"
        Treatment of an object in a pickle that is not on the list of harmless ones: an error, or passed over.

    Returns
    -------
    dict
        From name to array. What is nested has its names joined by dots, as in PyTorch's state dicts. bfloat16 comes
        back as float32, exactly. Arrays may be read-only, and views of each other's memory.

    Raises
    ------
    ValueError
        If the file is damaged, hostile, or of no known format; the message names it.
    ImportError
        If its format needs a package that is not installed; the message names it.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> np.savez("model.npz", **qg.LSTM(64, 128, rng=0).state_dict(prefix="lstm."))
    >>> qg.io.read("model.npz")["lstm.weight_ih_l0"].shape
    (512, 64)
    """
    return _files.contents(path, unknown).arrays


def networks(path_or_arrays: File | Mapping[str, Any], *, unknown: str = "error") -> list[Found]:
    """Return the recurrent networks of a file, or of arrays by name, each as a `Found`.

    Parameters
    ----------
    path_or_arrays : str, path, binary file, or mapping from name to array
        A file of any known format, or arrays under the names of PyTorch, TensorFlow 1 or Keras.
    unknown : "error" or "skip"
        As in `read`.

    Returns
    -------
    list of Found
        ``str(found)`` is what a person reads; ``found.build()`` is the network.

    Raises
    ------
    ValueError, ImportError, OSError
        As in `read`.

    Examples
    --------
    >>> import quadgate as qg
    >>> [(f.kind, f.name, f.input_size, f.hidden_size) for f in qg.io.networks("model.onnx")]
    [('LSTM', 'y', 64, 5)]
    """
    return _files.networks(path_or_arrays, unknown, "path_or_arrays")


def load(path: File, *, name: str | None = None, unknown: str = "error", **options: Any) -> LSTM | RNN:
    """Return the network of a file: the only one, or the one named.

    Parameters
    ----------
    path : str, path or binary file
        A file of any known format, among them those that `save` writes, or one that is open.
    name : str, optional
        Which one, where there are several: a prefix of a state dict, a layer of Keras, a node of ONNX.
    unknown : "error" or "skip"
        As in `read`.
    **options
        Arguments of `quadgate.LSTM` or `quadgate.RNN` that the file does not say, such as ``batch_first``, and those
        that an error asks for. Sizes follow from the file and can be given only as they are. ``forget_bias`` is added
        to the biases of a TensorFlow 1 file, and refused where it would change none. For a quantised network also
        ``weights="float32"``, which makes one with the same numbers that can be trained.

    Returns
    -------
    LSTM or RNN
        Of a file that `save` wrote, the same network, to the last bit.

    Raises
    ------
    ValueError
        If there is no network in the file, there are several and none is named, or something is missing that cannot be
        known; the message lists the names, or the options to give.
    TypeError
        If the class has no such option.
    ImportError, OSError
        As in `read`.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> np.savez("model.npz", **qg.LSTM(64, 128, rng=0).state_dict(prefix="encoder.lstm."))
    >>> lstm = qg.io.load("model.npz", name="encoder.lstm", batch_first=True)
    """
    source = _files.title(path)
    return _found.choose(_files.networks(path, unknown, "path"), name, source).build(**options)


def save(net: LSTM | RNN, path: File) -> None:
    """Write a network to a file of safetensors, its options in the metadata; `load` gives the same bits back.

    Parameters
    ----------
    net : LSTM or RNN
    path : str, path or binary file
        The file to write or to replace. It is replaced as a whole: an interruption leaves the old one. One that is open
        is written to from where it is.

    Raises
    ------
    TypeError
        If `net` is no network.
    ImportError
        If the package safetensors is not installed.
    OSError
        If the file cannot be written.

    Notes
    -----
    The format is safetensors, whatever the suffix of `path`; a warning names a suffix of another format. The generator
    that draws masks in training is not saved. Parameters have quadgate's own names, so that other programs that read
    safetensors see them too; `to_torch` has PyTorch's.

    Examples
    --------
    >>> import quadgate as qg
    >>> qg.io.save(qg.LSTM(64, 128, rng=0), "mine.safetensors")
    >>> lstm = qg.io.load("mine.safetensors")
    """
    _files.title(path)  # refuses what is no file, before the work
    _files.write(_safetensors.save(net), path)


def from_state_dict(arrays: Mapping[str, Any], *, name: str | None = None, **options: Any) -> LSTM | RNN:
    """Return the network whose weights are among arrays by name; sizes are inferred.

    Parameters
    ----------
    arrays : mapping from name to array
        A state dict of a whole model, of ``torch.nn.LSTM``, ``LSTMCell`` (names without ``_l0``) or ``RNN``, with
        projection; also with weight_norm, old (``_g``, ``_v``) and new (``parametrizations``), with pruning
        (``_orig``, ``_mask``) and with weight-drop (``_raw``). Tensors on the CPU will do for arrays.
    name : str, optional
        The prefix of the network, where there are several.
    **options
        Arguments that the names do not say, such as ``batch_first``, ``dropout``, or an RNN's ``nonlinearity``.

    Raises
    ------
    ValueError
        If there is no network or there are several, or the arrays do not fit together.
    TypeError
        If `arrays` is no mapping, or the class has no such option.

    Examples
    --------
    >>> import quadgate as qg
    >>> arrays = qg.LSTM(64, 128, 2, rng=0).state_dict(prefix="encoder.lstm.")
    >>> lstm = qg.io.from_state_dict(arrays, name="encoder.lstm", batch_first=True)
    >>> lstm.num_layers
    2
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays must be a mapping from names to arrays, got {type(arrays).__name__}")
    return _found.choose(_files.among(arrays, "the arrays"), name, "the arrays").build(**options)


def to_torch(net: LSTM | RNN, *, prefix: str = "") -> dict[str, Array]:
    """Return a network's parameters under the names of ``torch.nn.LSTM`` or ``torch.nn.RNN``.

    Parameters
    ----------
    net : LSTM or RNN
        With options that PyTorch has. It has two biases for our one: the second is zeros.
    prefix : str
        Put in front of every name.

    Raises
    ------
    ValueError
        If the network has what PyTorch's do not: peepholes, layer normalisation, coupled gates, other activations,
        clipping, zoneout, shortcuts, a merge other than "concat", ``reverse=True``, or a projection to H columns or
        more.
    TypeError
        If `net` is no network.

    Examples
    --------
    With PyTorch, ``module.load_state_dict({k: torch.from_numpy(v) for k, v in result.items()})`` takes it over.

    >>> import quadgate as qg
    >>> list(qg.io.to_torch(qg.LSTM(64, 128, rng=0)))
    ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0']
    """
    refuse_others(net, "PyTorch's networks", {"proj_size"})
    projection = net._options.proj_size
    if projection >= net.hidden_size:
        raise ValueError(f"PyTorch's proj_size must be less than hidden_size={net.hidden_size}, got {projection}")
    return net.state_dict(prefix=prefix)
