"""The benchmarks' own arithmetic, and the peers against the reference at one small shape each: not timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import judge
import numpy as np
import pytest
from ceilings import fma_peak, read_bandwidth
from measure import Result
from peers.base import make_arrays
from peers.client import PEERS, Client, PeerError
from readme import rewrite
from report import floor, geometric_mean, markdown, plot, ratio
from shapes import MODES, Shape, choose

SMALL = [Shape(f"small_{mode}", 1 if mode == "stream" else 5, 3, 4, 7, mode, 2) for mode in MODES]
CEILINGS = {
    "isa": "avx2",
    "caches": {"l1d": 32768, "l2": 1 << 20, "l3": 1 << 25},
    "gflop_per_s": {"float32": {"1": 100.0, "2": 190.0}},
    "read": [{"threads": 1, "bytes": size, "gb_per_s": rate} for size, rate in ((1 << 14, 400.0), (1 << 20, 100.0))],
    "round_trip_ns": 100.0,
}


@pytest.mark.parametrize("shape", SMALL, ids=lambda s: s.mode)
@pytest.mark.parametrize("peer", list(PEERS))
def test_peer_is_right(peer: str, shape: Shape, tmp_path: Path) -> None:
    """Each peer gives the reference's outputs, in every mode that it has."""
    if shape.mode not in PEERS[peer]:
        pytest.skip(f"{peer} has no {shape.mode}")
    arrays = make_arrays(shape)
    np.savez(tmp_path / "arrays.npz", **arrays)  # type: ignore[arg-type]
    try:
        client = Client(peer, 1)
    except PeerError as error:
        if peer not in ("quadgate", "quadgate_step") and "NotFoundError" in str(error):  # module or package
            pytest.skip(f"{peer} is not installed")
        raise
    with client:
        judge.check(shape, judge.expected(shape, arrays), client.setup(shape, tmp_path / "arrays.npz"))
        assert client.time(2) > 0


def test_check_finds_an_error() -> None:
    """A wrong output, one of a wrong shape and a missing one are refused."""
    shape = SMALL[0]
    wanted = judge.expected(shape, make_arrays(shape))
    assert judge.check(shape, wanted, wanted) == 0
    for wrong in ({**wanted, "y": wanted["y"] + 1e-4}, {**wanted, "y": wanted["y"][0]}, {"h": wanted["h"]}):
        with pytest.raises(AssertionError):
            judge.check(shape, wanted, wrong)
    with pytest.raises(AssertionError):
        judge.check(shape, wanted, {**wanted, "c": np.full_like(wanted["c"], np.nan)})


def test_shape_counts() -> None:
    """Work and traffic of a shape that is easily counted by hand."""
    shape = Shape("by hand", T=10, B=1, I=3, H=2, layers=2, directions=2)
    assert shape.widths == [3, 4]
    assert shape.weights == 2 * 8 * (3 + 2) + 2 * 8 * (4 + 2)
    assert shape.flops == 2 * 10 * shape.weights
    assert shape.weight_reads == 4 * (10 * 2 * 2 * 16 + 2 * 8 * (3 + 4))
    assert len(choose(["table"])) == 12 + 5 + 4
    with pytest.raises(ValueError, match="no shape named '5'"):
        choose(["5"])


def test_report(tmp_path: Path) -> None:
    """The ratios and shares in the tables, and that the plot is drawn."""
    shape = Shape("training_2_32_256_256", 2, 32, 256, 256, "training", listed=True)
    seconds = shape.flops / 50e9  # half of the peak
    samples = {"quadgate": [seconds] * 3, "torch": [3 * seconds] * 3, "onednn": [2 * seconds] * 3}
    header = {"cpu": "a cpu", "cores": 2, "date": "2000-01-01", "load": [0.0, 0.0], "versions": {"torch": "0"}}
    run = {"header": {**header, "python": "3", "numpy": "2", "rounds": 3}, "ceilings": CEILINGS}
    text = markdown(run, [Result(shape, 1, samples)])
    assert "| 2.00 | 3.00 | 4.00 | 50.0 | 50 |" in text
    assert "best peer / quadgate 2.00 (least 2.00), of torch / quadgate 3.00, over 1 shapes; below 0.97: none" in text
    plot(run, [Result(shape, 1, samples)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n")
    rewrite(page, run, [Result(shape, 1, samples)])
    text = page.read_text()
    assert text.startswith("before\n<!-- table -->\n\na cpu, 2 virtual cores of 100 GFLOP/s")
    assert text.endswith("\n\n<!-- /table -->\nafter\n")
    assert "| 2, 32, 256, 256 | 4027 us | 2.00 (oneDNN) | 3.0 |\n" in text
    assert "| **geometric mean** | (room 4.00) | **2.00** | **3.0** |\n" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no <!-- table -->"):
        rewrite(page, run, [Result(shape, 1, samples)])


def test_ratios_are_of_neighbouring_samples() -> None:
    """Where the machine is half as fast in every second round, the ratio is still that of the rounds."""
    result = Result(Shape("by hand", 1, 1, 1, 1), 1, {"quadgate": [1, 2, 1, 4], "onednn": [3, 6, 3, 12]})
    assert ratio(result, "onednn", "quadgate") == 3
    assert result.median("onednn") / result.median("quadgate") == 3
    result.samples["quadgate"] = [1, 2, 1, 2]
    result.samples["onednn"] = [2, 3, 2, 2]
    assert ratio(result, "onednn", "quadgate") == 1.75


def test_floor() -> None:
    """A step at batch 1 reads its weights; one of a large batch multiplies; training does both three times."""
    one = Result(Shape("one step", 1, 1, 1024, 1024), 1)
    assert floor(one, CEILINGS) == pytest.approx(4 * 8 * 1024**2 / read_bandwidth(CEILINGS, 32 << 20, 1) * 1e-9)
    many = Result(Shape("many rows", 10, 64, 64, 64), 1)
    assert floor(many, CEILINGS) == pytest.approx(many.shape.flops / 100e9)
    assert floor(Result(replace(many.shape, mode="training"), 1), CEILINGS) == pytest.approx(3 * floor(many, CEILINGS))
    steps = Shape("a sequence", 10, 1, 1024, 1024)
    sweep = 16 * 1024**2 / read_bandwidth(CEILINGS, 16 << 20, 1) * 1e-9
    assert floor(Result(steps, 1), CEILINGS) == pytest.approx(10 * sweep + steps.flops / 2 / 100e9)
    both = floor(Result(replace(steps, mode="training"), 1), CEILINGS)
    assert both == pytest.approx(20 * sweep + 4 * steps.flops / 2 / 100e9)


def test_ceilings_are_read_between_their_points() -> None:
    """The bandwidth is interpolated in the logarithm of the size; threads not measured scale from one."""
    assert geometric_mean([1, 4]) == pytest.approx(2)
    assert fma_peak(CEILINGS, 2) == 190
    assert fma_peak(CEILINGS, 4) == 400
    assert read_bandwidth(CEILINGS, 1, 1) == 400
    assert read_bandwidth(CEILINGS, 1 << 17, 1) == pytest.approx(250)
    assert read_bandwidth(CEILINGS, 1 << 30, 1) == 100
