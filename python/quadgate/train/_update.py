"""One step of a model's optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _core
from ._recurrent import Recurrent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ._layer import Layer
    from ._model import Sequential

    Array = NDArray[Any]


def update(model: Sequential, grads: Sequence[Array], states: Mapping[Layer, Any] | None) -> None:
    """Swap in the next parameters, the optimizer's next state and the states of a stateful model, or nothing.

    Raises
    ------
    RuntimeError
        If another thread has changed the parameters or the optimizer's state in the meantime, which would be lost.
    """
    _, optimizer = model._compiled()
    memory = model._memory
    owners: list[Any] = [layer.net if isinstance(layer, Recurrent) else layer for layer in model._layers]
    before = {id(owner): owner._snapshot for owner in owners}
    params = [value for snapshot in before.values() for value in snapshot.params.values()]
    new, after = optimizer.update(params, grads, memory)
    swaps = [(owner, name, value, before[id(owner)]) for owner, name, value in model._swaps(new)]
    if not _core.replace_all([*swaps, (model, "_memory", after, memory), (model, "_states", states)]):
        raise RuntimeError(
            "the parameters were changed by other means during a training step, which has changed nothing: let one "
            "thread train a model at a time"
        )
