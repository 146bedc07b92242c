"""Draw the pictures of options.md and performance.md: python docs/drawings.py

Writes docs/_static/drawings/*.svg. Their colours can be read on light and on dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(__file__).parent / "_static" / "drawings"
PLAIN, NEW, TEXT = "#8a94a3", "#e07b1a", "#808a99"
BLUE = "#3f86cc"
TIMES = "\N{MULTIPLICATION SIGN}"


class Drawing:
    """An SVG that grows by one element a call; orange for the parts of an option. Lines end at boxes."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []
        self.lines: list[str] = []
        self.holes: list[str] = []  # shapes that lines do not enter

    def line(self, *points: tuple[float, float], new: bool = False, arrow: bool = False, dashed: bool = False) -> None:
        """Draw a line through points, with an arrow at its end."""
        colour = NEW if new else PLAIN
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = ' stroke-dasharray="4 4"' if dashed else ""
        self.lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{style}/>')
        if arrow:
            (x0, y0), (x, y) = points[-2:]
            a = math.atan2(y - y0, x - x0)
            corners = [(x, y), *((x - 8 * math.cos(a + d), y - 8 * math.sin(a + d)) for d in (-0.45, 0.45))]
            path = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
            self.parts.append(f'<polygon points="{path}" fill="{colour}"/>')

    def text(
        self, x: float, y: float, words: str, *, new: bool = False, size: int = 14, anchor: str = "middle"
    ) -> None:
        """Write words around (x, y)."""
        colour = NEW if new else TEXT
        font = f'font-family="sans-serif" font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
        self.parts.append(f'<text x="{x:g}" y="{y + 0.35 * size:g}" {font}>{words}</text>')

    def box(self, x: float, y: float, words: str, *, new: bool = False, width: float = 36) -> None:
        """Draw a box around (x, y) with words in it."""
        colour = NEW if new else PLAIN
        place = f'x="{x - width / 2:g}" y="{y - 12:g}" width="{width:g}" height="24" rx="4"'
        self.holes.append(f"<rect {place}/>")
        self.parts.append(f'<rect {place} fill="{colour}" fill-opacity="0.14" stroke="{colour}" stroke-width="1.8"/>')
        self.text(x, y, words, new=new, size=13)

    def sign(self, x: float, y: float, words: str, *, new: bool = False) -> None:
        """Draw a circle around (x, y) with the sign of an operation in it."""
        colour = NEW if new else PLAIN
        place = f'cx="{x:g}" cy="{y:g}" r="9"'
        self.holes.append(f"<circle {place}/>")
        self.parts.append(f'<circle {place} fill="none" stroke="{colour}" stroke-width="1.8"/>')
        self.text(x, y, words, new=new, size=15)

    def __str__(self) -> str:
        size = f'width="{self.width}" height="{self.height}"'
        view = f'viewBox="0 0 {self.width} {self.height}" role="img"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>\n<title>{self.title}</title>'
        white = f'<rect width="{self.width}" height="{self.height}" fill="#fff"/>'
        mask = f'<mask id="m" maskUnits="userSpaceOnUse" x="0" y="0" {size}>{white}{"".join(self.holes)}</mask>'
        return "\n".join([head, mask, '<g mask="url(#m)">', *self.lines, "</g>", *self.parts, "</svg>\n"])


GATES = {"f": 190, "i": 250, "g": 310, "o": 380}  # x of each gate's box
CELL, BUS, GATE, OUT = 40, 205, 150, 150  # y of the line of c, the line of a, the gates and h


def cell(title: str, option: str = "") -> Drawing:
    """Draw one step of a layer, with an option's parts in orange."""
    d = Drawing(640, 264, title)
    clip, norm = option == "gate_clip", option.startswith("layer_norm")

    # Products and their sum.
    d.text(14, BUS, "x")
    d.text(14, BUS + 32, "h'")
    d.line((24, BUS), (130, BUS), arrow=True)
    d.line((24, BUS + 32), (139, BUS + 32), (139, BUS + 9), arrow=True)
    d.box(58, BUS, "W", width=26)
    d.box(82, BUS + 32, "U", width=26, new=option == "weight_drop")
    if option == "recurrent_dropout":
        d.sign(45, BUS + 32, TIMES, new=True)
        d.text(45, BUS + 52, "mask", new=True, size=11)
    if option == "weight_drop":
        d.text(82, BUS + 52, "mask", new=True, size=11)
    if norm:
        d.box(102, BUS, "N", width=24, new=True)
        d.box(117, BUS + 32, "N", width=24, new=True)
    d.sign(139, BUS, "+")

    # Gates.
    d.line((148, BUS), (GATES["o"], BUS))
    for gate, x in GATES.items():
        lost = option == "coupled" and gate == "f"
        d.line((x, BUS), (x, GATE + 12), arrow=True, dashed=lost)
        function = ("t" if gate == "g" else "s") if option == "activations" else "tanh" if gate == "g" else "sig"
        d.box(x, GATE, "1 - i" if lost else function, new=lost or option == "activations", width=40)
        d.text(x + 13, GATE - 24, gate)
        if clip:
            d.box(x, GATE + 30, "clip", new=True, width=32)
    if option == "coupled":
        d.line((GATES["i"] - 20, GATE), (GATES["f"] + 20, GATE), new=True, arrow=True)

    # The cell.
    d.text(14, CELL, "c'")
    d.line((24, CELL), (620, CELL), arrow=True)
    d.text(630, CELL, "c")
    d.line((GATES["f"], GATE - 12), (GATES["f"], CELL + 9), arrow=True)
    d.sign(GATES["f"], CELL, TIMES)
    d.line((GATES["i"], GATE - 12), (GATES["i"], 92), (271, 92), arrow=True)
    d.line((GATES["g"], GATE - 12), (GATES["g"], 92), (289, 92), arrow=True)
    d.sign(280, 92, TIMES)
    d.line((280, 83), (280, CELL + 9), arrow=True)
    d.sign(280, CELL, "+")

    # h.
    d.line((450, CELL), (450, OUT - 9), arrow=True)
    d.box(450, 92, "u" if option == "activations" else "tanh", width=40, new=option == "activations")
    d.line((GATES["o"] + 20, OUT), (441, OUT), arrow=True)
    d.sign(450, OUT, TIMES)
    d.line((459, OUT), (620, OUT), arrow=True)
    d.text(630, OUT, "h")

    if option == "peephole":
        for gate, x in (("f", 90), ("i", 105)):
            d.line((x, CELL), (x, GATE + (36 if gate == "i" else 26)), new=True)
            y, end = GATE + (36 if gate == "i" else 26), GATES[gate] - 8
            d.line((x, y), (end, y), (end, GATE + 12), new=True, arrow=True)
        d.line((352, CELL), (352, GATE + 30), (372, GATE + 30), (372, GATE + 12), new=True, arrow=True)
    elif option == "cell_clip":
        d.box(345, CELL, "clip", new=True, width=34)
    elif clip:
        d.box(450, 64, "clip", new=True, width=32)
    elif option == "layer_norm_output":
        d.box(450, 64, "N", new=True, width=24)
    elif option == "layer_norm_cell":
        d.box(345, CELL, "N", new=True, width=24)
    elif option == "proj_size":
        d.box(505, OUT, "W_hr", new=True, width=44)
        d.box(565, OUT, "clip", new=True, width=34)
    elif option == "zoneout":
        for y, old in ((CELL, "c'"), (OUT, "h'")):
            d.box(550, y, "mix", new=True, width=36)
            d.line((550, y + 40), (550, y + 12), new=True, arrow=True)
            d.text(550, y + 50, old, new=True)
    return d


def activations() -> Drawing:
    """Draw the activations from -3 to 3, with ONNX's defaults of alpha and beta."""
    functions: dict[str, Callable[[float], float]] = {
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "tanh": math.tanh,
        "relu": lambda x: max(x, 0),
        "hard_sigmoid": lambda x: max(0, min(1, 0.2 * x + 0.5)),
        "affine": lambda x: x,
        "leaky_relu": lambda x: x if x >= 0 else 0.01 * x,
        "thresholded_relu": lambda x: x if x > 1 else 0,
        "scaled_tanh": math.tanh,
        "elu": lambda x: x if x >= 0 else math.exp(x) - 1,
        "softsign": lambda x: x / (1 + abs(x)),
        "softplus": lambda x: math.log1p(math.exp(x)),
    }
    d = Drawing(640, 330, "The eleven activations from -3 to 3")
    for n, (name, f) in enumerate(functions.items()):
        x0, y0 = 80 + 160 * (n % 4), 62 + 112 * (n // 4)
        d.line((x0 - 66, y0), (x0 + 66, y0))
        d.line((x0, y0 - 40), (x0, y0 + 40))
        points: list[list[tuple[float, float]]] = []
        run: list[tuple[float, float]] = []
        for k in range(-60, 61):
            x, y = k / 20, f(k / 20)
            if abs(y) <= 2:
                run.append((x0 + 22 * x, y0 - 20 * y))
            if run and (abs(y) > 2 or k == 60 or (name == "thresholded_relu" and k == 20)):
                points, run = [*points, run], []
        for run in points:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
            d.parts.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2.4"/>')
        d.text(x0, y0 - 50, name, size=13)
    return d


def layers(title: str, option: str) -> Drawing:
    """Draw three layers on top of each other, from left to right, with an option's parts in orange."""
    d = Drawing(640, 110, title)
    y, at = 70, (120, 290, 460)
    d.text(14, y, "x")
    d.line((24, y), (610, y), arrow=True)
    d.text(624, y, "y")
    for k, x in enumerate(at):
        d.box(x, y, f"layer {k}", width=70)
        if option == "dropout" and k:
            d.sign(x - 85, y, TIMES, new=True)
            d.text(x - 85, y - 22, "mask", new=True, size=11)
        elif k and option:
            end = x + 62
            d.line((x - 60, y), (x - 60, y - 38), (end, y - 38), (end, y - 10), new=True, arrow=True)
            if option == "dense":
                d.box(end, y, "[ ]", new=True, width=24)
            else:
                d.sign(end, y, {"residual": "+", "highway": "t"}[option], new=True)
    return d


def directions() -> Drawing:
    """Draw both directions of a layer and their merge."""
    d = Drawing(640, 180, "Two directions over the same steps, joined step by step")
    for t in range(4):
        x = 120 + 130 * t
        d.text(x, 168, f"x[{t}]")
        for at, y in ((x - 18, 126), (x + 18, 84)):
            d.line((x, 158), (x, 150), (at, 150), (at, y + 12), new=y == 84, arrow=True)
            d.line((at, y - 12), (at, 54), new=y == 84, arrow=True)
        d.box(x - 18, 126, "forward", width=62)
        d.box(x + 18, 84, "reverse", width=62, new=True)
        d.box(x, 42, "merge", width=70, new=True)
        if t < 3:
            d.line((x + 13, 126), (x + 81, 126), arrow=True)
            d.line((x + 117, 84), (x + 49, 84), new=True, arrow=True)
        d.line((x, 30), (x, 22), arrow=True)
        d.text(x, 12, f"y[{t}]")
    return d


def steps() -> Drawing:
    """Draw a batch of four rows with lengths, masks and resets."""
    d = Drawing(640, 170, "Steps that are computed, skipped and reset, in four rows of a batch")
    rows = {"lengths: 5": "xxxxx---", "mask, in front": "--xxxxxx", "mask, anywhere": "xx-xx--x", "resets": "xxx|xx|x"}
    for b, (name, row) in enumerate(rows.items()):
        y, column = 24 + 36 * b, 0
        d.text(126, y, name, anchor="end")
        for sign in row + ("xx" if "|" in row else ""):
            x = 150 + 56 * column
            if sign == "|":
                d.line((x - 4, y - 16), (x - 4, y + 16), new=True)
                continue
            fill = f'fill="{BLUE}" fill-opacity="0.35"' if sign == "x" else 'fill="none" stroke-dasharray="3 3"'
            colour = BLUE if sign == "x" else PLAIN
            d.parts.append(f'<rect x="{x}" y="{y - 12}" width="48" height="24" rx="3" {fill} stroke="{colour}"/>')
            column += 1
    for t in range(8):
        d.text(174 + 56 * t, 160, f"t = {t}", size=12)
    return d


# From bench/RESULTS.md of 2026-11-26, one thread: the machine's limits, and (T, B, I, H) with GFLOP/s.
PEAK, L2, BEYOND = 167, 127, 27
CALLS = {
    (1, 1, 64, 128): 30.6,
    (1, 1, 1024, 1024): 7.2,
    (100, 1, 64, 128): 58.3,
    (100, 1, 256, 256): 74.5,
    (100, 1, 512, 512): 33.5,
    (50, 1, 1536, 1536): 18.6,
    (25, 4, 1024, 1024): 57.4,
    (100, 16, 64, 128): 96.6,
    (100, 32, 256, 256): 117.2,
    (25, 64, 1024, 1024): 137.2,
}


def roofline() -> Drawing:
    """Draw the speed of calls over the flops for each byte of weights that a step reads."""
    d = Drawing(640, 360, "Speed of calls below the machine's limits")

    def at(flops_a_byte: float, speed: float) -> tuple[float, float]:
        return 60 + 60 * math.log2(flops_a_byte / 0.25), 320 - 50 * math.log2(speed / 4)

    for level in (4, 8, 16, 32, 64, 128):
        d.text(50, at(1, level)[1], str(level), size=12, anchor="end")
    for intensity in (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128):
        d.text(at(intensity, 4)[0], 336, f"{intensity:g}", size=12)
    d.line(at(0.25, 256), at(0.25, 4), at(160, 4))
    d.text(330, 354, "flops for each byte of weights that a step reads", size=12)
    d.text(66, 14, "GFLOP/s, one thread", size=12, anchor="start")
    for rate, name in ((L2, "from L2, 127 GB/s"), (BEYOND, "beyond, 27 GB/s")):
        start = at(0.25, rate * 0.25)
        d.line(start, at(PEAK / rate, PEAK), new=True)
        turn = f'transform="translate({start[0] + 10:.0f} {start[1] - 16:.0f}) rotate(-40)"'
        d.parts.append(f'<text {turn} font-family="sans-serif" font-size="12" fill="{NEW}">{name}</text>')
    d.line(at(PEAK / L2, PEAK), at(160, PEAK), new=True)
    d.text(470, at(1, PEAK)[1] - 12, "multiply-adds, 167 GFLOP/s", new=True, size=12)
    for (steps, batch, inputs, hidden), speed in CALLS.items():
        # The input product of many steps reads its weights once.
        x, y = at(batch / 2 * (1 if steps == 1 else 1 + inputs / hidden), speed)
        d.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{BLUE}"/>')
        words = f"{steps}, {batch}, {inputs}, {hidden}"
        if batch == 32:  # between two others
            d.text(x - 9, y, words, size=11, anchor="end")
        elif x < 500:
            d.text(x + 9, y + 9, words, size=11, anchor="start")
        else:
            d.text(x, y + 15, words, size=11)
    return d


def drawings() -> dict[str, Drawing]:
    """Return all drawings by the names of their files."""
    return {
        "plain": cell("A step of a layer without options"),
        "peephole": cell("The old c joins the arguments of f and i, the new one that of o", "peephole"),
        "coupled": cell("f is made of i", "coupled"),
        "activations": cell("The functions s, t and u", "activations"),
        "curves": activations(),
        "cell_clip": cell("c is clipped before anything uses it", "cell_clip"),
        "gate_clip": cell("The argument of every activation is clipped", "gate_clip"),
        "proj_size": cell("h is a product of W_hr, and clipped", "proj_size"),
        "layer_norm_output": cell("Both products are normalised, and c on its way to h", "layer_norm_output"),
        "layer_norm_cell": cell("Both products are normalised, and c", "layer_norm_cell"),
        "recurrent_dropout": cell("Columns of the old h are masked", "recurrent_dropout"),
        "weight_drop": cell("Elements of U are masked", "weight_drop"),
        "zoneout": cell("Old and new c are mixed, and old and new h", "zoneout"),
        "dropout": layers("Masks between layers", "dropout"),
        "residual": layers("A layer's input is added to its output", "residual"),
        "highway": layers("A gate mixes a layer's input and output", "highway"),
        "dense": layers("A layer's input and output stand side by side", "dense"),
        "directions": directions(),
        "steps": steps(),
        "roofline": roofline(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, drawing in drawings().items():
        (FOLDER / f"{name}.svg").write_text(str(drawing), encoding="utf-8")
