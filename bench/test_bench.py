"""The benchmarks' own arithmetic, and the peers against the reference at one small shape each: not timed."""

from __future__ import annotations

from pathlib import Path

import judge
import numpy as np
import pytest
from ceilings import fma_peak, read_bandwidth
from measure import Result
from peers.base import make_arrays
from peers.client import PEERS, Client, PeerError
from report import geometric_mean, markdown, plot
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
        if peer not in ("fourgate", "fourgate_step") and "ModuleNotFoundError" in str(error):
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
    samples = {"fourgate": [seconds] * 3, "torch": [3 * seconds] * 3, "onednn": [2 * seconds] * 3}
    header = {"cpu": "a cpu", "cores": 2, "date": "2000-01-01", "load": [0.0, 0.0], "versions": {"torch": "0"}}
    run = {"header": {**header, "python": "3", "numpy": "2", "rounds": 3}, "ceilings": CEILINGS}
    text = markdown(run, [Result(shape, 1, samples)])
    assert "| 2.00 | 3.00 | 50.0 | 50 |" in text
    assert "best peer / fourgate 2.00 (least 2.00), of torch / fourgate 3.00, over 1 shapes; below 0.97: none" in text
    plot(run, [Result(shape, 1, samples)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"


def test_ceilings_are_read_between_their_points() -> None:
    """The bandwidth is interpolated in the logarithm of the size; threads not measured scale from one."""
    assert geometric_mean([1, 4]) == pytest.approx(2)
    assert fma_peak(CEILINGS, 2) == 190
    assert fma_peak(CEILINGS, 4) == 400
    assert read_bandwidth(CEILINGS, 1, 1) == 400
    assert read_bandwidth(CEILINGS, 1 << 17, 1) == pytest.approx(250)
    assert read_bandwidth(CEILINGS, 1 << 30, 1) == 100
