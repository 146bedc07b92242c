"""The table that `Sequential.summary` prints, in the form of Keras 3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..io._keras_layers import snake_case

if TYPE_CHECKING:
    from ._model import Sequential


def table(model: Sequential) -> str:
    """Return the layers, their output shapes and their numbers of parameters."""
    rows, counts = [], dict[str, int]()
    for k, (layer, shape) in enumerate(zip(model.layers, model._output_shapes, strict=True)):
        kind = type(layer).__name__
        name, number = snake_case(kind), counts.get(kind, 0)
        counts[kind] = number + 1
        name += f"_{number}" if number else ""
        shown = f"({', '.join('None' if n is None else str(n) for n in shape)})"
        rows.append((f"{name} ({kind})", shown, f"{model._layers[k].num_parameters:,}"))
    head = ("Layer (type)", "Output Shape", "Param #")
    least = (33, 24, 15)
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(3)]
    widths = [max(width, wide - 2) for width, wide in zip(widths, least, strict=True)]

    def line(row: tuple[str, str, str], bar: str) -> str:
        cells = (row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]))
        return f"{bar} {f' {bar} '.join(cells)} {bar}"

    def rule(left: str, middle: str, right: str, of: str) -> str:
        return left + middle.join(of * (width + 2) for width in widths) + right

    lines = ['Model: "sequential"', rule("┏", "┳", "┓", "━"), line(head, "┃"), rule("┡", "╇", "┩", "━")]
    for k, row in enumerate(rows):
        lines += [rule("├", "┼", "┤", "─")] if k else []
        lines.append(line(row, "│"))
    lines.append(rule("└", "┴", "┘", "─"))
    total = model.num_parameters
    size = _size(total * model.dtype.itemsize)
    lines += [f" Total params: {total:,} ({size})", f" Trainable params: {total:,} ({size})"]
    lines.append(" Non-trainable params: 0 (0.00 B)")
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count:.2f} {unit}"
        count /= 1024
    return ""
