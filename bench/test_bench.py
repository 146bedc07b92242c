"""Arithmetic of the benchmarks, and the peers against the reference at one small shape each; nothing is timed."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import compare
import grid
import judge
import numpy as np
import pytest
import quantised
import uses
import whole_job
from ceilings import best, fma_peak, looks_of, read_bandwidth
from measure import Result
from peers.base import make_arrays
from peers.client import PEERS, QUANTISED, Client, PeerError
from peers.peer_onnxruntime_int8 import saturates
from report import below_one, floor, geometric_mean, markdown, plot, ratio, ratio_spread
from shapes import MODES, Shape, choose
from table import rewrite

SMALL = [Shape(f"small_{mode}", 1 if mode == "stream" else 5, 3, 4, 7, mode, 2) for mode in MODES]
CEILINGS = {
    "isa": "avx2",
    "caches": {"l1d": 32768, "l2": 1 << 20, "l3": 1 << 25},
    "gflop_per_s": {"float32": {"1": 100.0, "2": 190.0}},
    "read": [{"threads": 1, "bytes": size, "gb_per_s": rate} for size, rate in ((1 << 14, 400.0), (1 << 20, 100.0))],
    "round_trip_ns": 100.0,
}
HEADER = {
    "cpu": "a cpu",
    "cores": 2,
    "date": "2000-01-01",
    "load": [0.0, 0.0],
    "versions": {"torch": "0"},
    "python": "3",
    "numpy": "2",
    "rounds": 3,
}


@pytest.mark.parametrize("peer", list(PEERS))
def test_peer_is_right(peer: str, tmp_path: Path) -> None:
    """Outputs of each peer equal those of the reference, in each of its modes."""
    try:
        client = Client(peer, 1)
    except PeerError as error:
        if peer not in ("quadgate", "quadgate_step") and "NotFoundError" in str(error):  # module or package
            pytest.skip(f"{peer} is not installed")
        raise
    with client:
        assert len(os.sched_getaffinity(client.process.pid)) == 1  # the same for all, whose cores may differ
        for shape in SMALL:
            if shape.mode in PEERS[peer]:
                arrays = make_arrays(shape)
                np.savez(tmp_path / "arrays.npz", **arrays)  # type: ignore[arg-type]
                judge.check(shape, judge.expected(shape, arrays), client.setup(shape, tmp_path / "arrays.npz"))
                assert client.time(2) > 0


def test_a_plain_product_stands_beside_calls() -> None:
    """Each round gives the operations a second of a call and of torch's product."""
    pytest.importorskip("torch")
    import matmul

    for mode in ("inference", "training"):
        found = matmul.rates(grid.parse("2,3,4,5", mode), (8, 4, 4), 1, 3)
        assert len(found) == 3
        assert all(ours > 0 and plain > 0 for ours, plain in found)


@pytest.mark.parametrize("peer", QUANTISED)
def test_quantised_peer_is_right(peer: str, tmp_path: Path) -> None:
    """Outputs of the networks of fewer bits are those of the reference but for the rounding of weights, x and h.

    Each is an integer with 127 steps to the largest number, of weights 1/sqrt(H) and of x and h together 4, so that a
    gate's argument is off by a half step of each term at most, and y by less than that.
    """
    shape = Shape("small", 2, 3, 4, 70)
    arrays = make_arrays(shape)
    np.savez(tmp_path / "arrays.npz", **arrays)  # type: ignore[arg-type]
    try:
        client = Client(peer, 1)
    except PeerError as error:
        if not peer.startswith("quadgate") and "NotFoundError" in str(error):  # module or package
            pytest.skip(f"{peer} is not installed")
        raise
    wanted = judge.expected(shape, arrays)
    largest = max(1, float(np.abs(arrays["x"]).max()))
    bound = (shape.I + shape.H) * shape.H**-0.5 * largest / 127
    with client:
        error = quantised.QuantisedRunner._check(client, shape, tmp_path / "arrays.npz", wanted)
        assert 0 < error < bound
        assert client.time(2) > 0


def test_quantised_shapes_and_table() -> None:
    """Places with several numbers make all combinations; the ratio is that to the fastest program that is not ours."""
    assert [s.label for s in quantised.parse("10/100,1,H,8/16")] == [
        "10,1,8,8",
        "10,1,16,16",
        "100,1,8,8",
        "100,1,16,16",
    ]
    for wrong in ("1,2,3", "1,2,3,4,5", "1,0,3,4", "1,2,3,H", "1,2,/,4"):
        with pytest.raises(ValueError, match="four positive integers"):
            quantised.parse(wrong)
    samples = {"quadgate_int8": [1e-6] * 3, "quadgate_float16": [0.5e-6] * 3, "onednn_int8": [1.3e-6] * 3}
    samples["onnxruntime_int8"] = [4e-6] * 3
    result = Result(Shape("2,3,4,5", 2, 3, 4, 5), 1, samples, dict.fromkeys(samples, 0.01))
    text = quantised.table([result])
    assert "| 2,3,4,5 | 1 | 1.00 [1.00, 1.00] (1.0e-02) | 0.500 [0.500, 0.500] (1.0e-02) |" in text
    assert text.splitlines()[2].endswith("| 1.30 [1.30, 1.30] (oneDNN) |")
    assert text.endswith("geometric mean 1.30, least 1.30")
    saturated = replace(result, errors={**result.errors, "onednn_int8": 0.11})
    assert quantised.best_peer(saturated) == "onnxruntime_int8"
    assert quantised.best_peer(replace(result, samples={"quadgate_int8": [1e-6]})) is None


def test_processors_whose_sums_saturate() -> None:
    """x86 without VNNI; other processors have no line of flags."""
    assert saturates("model name : x\nflags : fpu avx2 fma\n")
    assert not saturates("flags : fpu avx2 avx_vnni\n")
    assert not saturates("flags : avx512f avx512_vnni\n")
    assert not saturates("Features : fp asimd\n")


def test_check_finds_an_error() -> None:
    """The check refuses a wrong output, one of a wrong shape and a missing one."""
    shape = SMALL[0]
    wanted = judge.expected(shape, make_arrays(shape))
    assert judge.check(shape, wanted, wanted) == 0
    for wrong in ({**wanted, "y": wanted["y"] + 1e-4}, {**wanted, "y": wanted["y"][0]}, {"h": wanted["h"]}):
        with pytest.raises(AssertionError):
            judge.check(shape, wanted, wrong)
    with pytest.raises(AssertionError):
        judge.check(shape, wanted, {**wanted, "c": np.full_like(wanted["c"], np.nan)})


def test_shape_counts() -> None:
    """Work and memory traffic of a shape, counted by hand."""
    shape = Shape("by hand", T=10, B=1, I=3, H=2, layers=2, directions=2)
    assert shape.widths == [3, 4]
    assert shape.weights == 2 * 8 * (3 + 2) + 2 * 8 * (4 + 2)
    assert shape.recurrent_weights == 2 * 2 * 8 * 2
    assert shape.all_flops == 2 * 10 * shape.weights
    assert shape.flops == 2 * (9 * 64 + 10 * 2 * 8 * (3 + 4))  # nothing is multiplied by a state of zeros
    assert shape.weight_reads == 4 * (9 * 64 + 2 * 8 * (3 + 4))
    training = replace(shape, mode="training")
    assert training.all_flops == 3 * shape.all_flops
    assert training.flops == 2 * shape.flops + shape.all_flops
    stream = Shape("a step", T=1, B=5, I=3, H=2, mode="stream")
    assert stream.flops == stream.all_flops == 2 * 5 * 8 * (3 + 2)
    assert len(choose(["table"])) == 12 + 5 + 4
    with pytest.raises(ValueError, match="no shape named '5'"):
        choose(["5"])


def test_report(tmp_path: Path) -> None:
    """Ratios and shares in the tables; the plot is a PNG."""
    shape = Shape("training_2_32_256_256", 2, 32, 256, 256, "training", listed=True)
    seconds = shape.flops / 50e9  # half of the peak
    samples = {"quadgate": [seconds] * 3, "torch": [3 * seconds] * 3, "onednn": [2 * seconds] * 3}
    run = {"header": HEADER, "ceilings": CEILINGS}
    text = markdown(run, [Result(shape, 1, samples)])
    assert "| 3355 [3355, 3355] | 10066 [10066, 10066] | 6711 [6711, 6711] |" in text
    assert "| 2.00 [2.00, 2.00] | 3.00 [3.00, 3.00] | 4.00 | 50.0 | 50 |" in text
    assert "best peer / quadgate 2.00 (least 2.00), of torch / quadgate 3.00, over 1 shapes; below 1.00: none" in text
    assert text.endswith("**Below 1.00: 0 of 1**\n")
    plot(run, [Result(shape, 1, samples)], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- /table -->\nafter\n")
    rewrite(page, run, [Result(shape, 1, samples)])
    text = page.read_text()
    assert text.startswith(
        "before\n<!-- table -->\n\na cpu, 2 virtual cores, shared; FMA peak 100 GFLOP/s with 1 thread;"
    )
    assert text.endswith("\n\n<!-- /table -->\nafter\n")
    assert "| 2, 32, 256, 256 | 3355 us | 2.00 (oneDNN) | 3.0 |\n" in text
    assert "| **geometric mean** | (room 4.00) | **2.00** | **3.0** |\n" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no <!-- table -->"):
        rewrite(page, run, [Result(shape, 1, samples)])


def test_table_and_picture_of_uses(tmp_path: Path) -> None:
    """Each use has a row from its own shape on one thread; a run that lacks one is refused; losses are below 1."""
    results = []
    for k, (mode, *sizes, layers) in enumerate(uses.USES.values()):
        shape = Shape(f"use {k}", *sizes, mode=mode, layers=layers)
        mine = "quadgate_step" if mode == "stream" else "quadgate"
        samples = {mine: [1e-4 * (k + 1)] * 3, "torch": [4e-4 * (k + 1)] * 3, "onednn": [0.5e-4 * (k + 1)] * 3}
        results += [Result(shape, 2, {mine: [1.0], "torch": [1.0]}), Result(shape, 1, samples)]
    run = {"header": HEADER, "ceilings": CEILINGS}
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- uses -->\n<!-- /uses -->\nb\n")
    uses.rewrite(page, run, results)
    text = page.read_text()
    assert text.startswith("a\n<!-- uses -->\n\nTime of one call")
    assert text.endswith("\n\n<!-- /uses -->\nb\n")
    assert "| audio effect, a sample | 1, 1, 1, 40 | 200 us | 4.0 | 0.50 |" in text
    assert text.count("| 4.0 | 0.50 |") == len(uses.USES)
    uses.picture(run, results, tmp_path / "uses.png")
    assert (tmp_path / "uses.png").read_bytes()[1:4] == b"PNG"
    found = {(s.mode, s.T, s.B, s.I, s.H, s.layers) for s in choose(["all"])}
    assert found >= set(uses.USES.values())
    with pytest.raises(ValueError, match="the run has no control, a step of a small policy: measure with --shapes all"):
        uses.rewrite(page, run, results[2:])


def test_the_drift_of_the_machine_does_not_change_a_ratio() -> None:
    """Rounds may be slower by any factor: times are those of the median round, and have no spread."""
    result = Result(Shape("by hand", 1, 1, 1, 1), 1, {"quadgate": [1, 2, 1, 4], "onednn": [3, 6, 3, 12]})
    assert result.times("quadgate") == pytest.approx([1.5] * 4)
    assert result.times("onednn") == pytest.approx([4.5] * 4)
    assert ratio(result, "onednn", "quadgate") == pytest.approx(3)
    assert result.spread("onednn") == pytest.approx((4.5, 4.5))
    assert ratio_spread(result, "onednn", "quadgate") == (3, 3)


def test_the_speed_of_a_round_is_that_of_most_programs() -> None:
    """A slow sample of one program of three changes nothing for the others, and is an outlier in its own spread."""
    result = Result(Shape("by hand", 1, 1, 1, 1), 1, {"quadgate": [1.0] * 5, "torch": [2.0] * 5, "onednn": [3.0] * 5})
    result.samples["onednn"][2] = 30.0
    assert result.times("quadgate") == [1.0] * 5
    assert result.times("onednn") == [3, 3, 30, 3, 3]
    assert result.spread("onednn") == pytest.approx((3, 19.2))  # 0.6 of the way from the second largest to the largest
    assert ratio(result, "onednn", "quadgate") == 3
    assert ratio_spread(result, "onednn", "quadgate") == pytest.approx((3, 19.2))


def test_ratios_agree_with_the_times_beside_them() -> None:
    """Each ratio in the report is the quotient of the times in its row, up to their rounding."""
    rng = np.random.default_rng(0)
    means = {"quadgate": 0, "torch": 0.5, "onednn": 1.0}
    samples = {name: list(rng.lognormal(mean, 0.3, 10) * 1e-3) for name, mean in means.items()}
    result = Result(Shape("by hand", 1, 1, 1, 1, listed=True), 1, samples)
    run = {"header": HEADER, "ceilings": CEILINGS}
    (row,) = [line for line in markdown(run, [result]).splitlines() if line.startswith("| 1,1,1,1 |")]
    mine, torch, _, best, against_torch = (float(cell.split()[0]) for cell in row.split("|")[3:8])
    assert best == against_torch == pytest.approx(torch / mine, abs=0.006)


def test_shapes_below_one_are_listed() -> None:
    """The list has the slower shapes, the slowest first; with an earlier run, those that were slower in both."""
    shapes = [Shape(f"s{k}", k, 1, 1, 1) for k in (1, 2, 3)]
    now = [Result(s, 2, {"quadgate": [10.0], "torch": [t]}) for s, t in zip(shapes, (9.0, 8.0, 10.0), strict=True)]
    assert below_one(now) == [
        "**Below 1.00: 2 of 3**",
        "",
        "- inference 2,1,1,1, 2 threads: 0.80 [0.80, 0.80] against torch",
        "- inference 1,1,1,1, 2 threads: 0.90 [0.90, 0.90] against torch",
    ]
    before = [Result(s, 2, {"quadgate": [10.0], "torch": [t]}) for s, t in zip(shapes, (9.0, 11.0, 9.0), strict=True)]
    assert below_one(now, before)[0] == "**Below 1.00 in both runs: 1 of 3**"
    assert "1,1,1,1" in below_one(now, before)[2]


def test_grid_is_reproducible_and_within_limits() -> None:
    """A grid depends on its seed alone; its sizes, work and modes are within the limits."""
    shapes = grid.draw(51, seed=3)
    assert shapes == grid.draw(51, seed=3)
    assert shapes[:20] == grid.draw(20, seed=3)
    assert shapes != grid.draw(51, seed=4)
    deep = grid.draw(20, seed=3, layers=3, directions=2)
    assert all(s.layers == 3 and s.directions == 2 and s.all_flops <= grid.MAX_FLOPS for s in deep)
    assert len(set(shapes)) == 51
    assert [s.mode for s in shapes] == ["inference", "training"] * 25 + ["inference"]
    for s in shapes:
        assert s.T in (1, 10, 100)
        assert s.B in (1, 2, 4, 7, 10, 16, 20, 33, 64, 256, 640)
        assert {s.I, s.H} <= {24, 40, 90, 128, 200, 256, 500, 512, 650, 1024, 2048}
        assert s.all_flops == 2 * s.T * s.B * 4 * s.H * (s.I + s.H) * (3 if s.mode == "training" else 1) <= 5e9
    generator = random.Random(3)  # its method random() is the same in all versions of Python
    first = [min(grid.candidates(mode), key=lambda _: generator.random()) for mode in ("inference", "training")]
    assert shapes[:2] == first
    with pytest.raises(ValueError, match="a grid has 0 to"):
        grid.draw(100_000, seed=0)


def test_every_shape_of_the_grid_can_be_drawn() -> None:
    """Candidates are all combinations whose work is within the limit; the largest are next to it."""
    for mode in ("inference", "training"):
        found = grid.candidates(mode)
        assert len(set(found)) == len(found) > 1000
        assert {s.T for s in found} == set(grid.STEPS)
        assert {s.B for s in found} == set(grid.BATCHES)
        assert {s.I for s in found} == {s.H for s in found} == set(grid.WIDTHS)
        assert 4.5e9 < max(s.all_flops for s in found) <= 5e9


def test_sizes_on_the_command_line() -> None:
    """T,B,I,H is a shape of its own in each mode, whatever the table has; other words are names."""

    def shapes(*words: str) -> list[Shape]:
        return compare.selected(compare.arguments().parse_args(words))

    both = shapes("--shapes", "200,16,12,96", "--mode", "inference", "training", "--layers", "2", "--directions", "2")
    assert [(s.T, s.B, s.I, s.H, s.mode, s.layers, s.directions) for s in both] == [
        (200, 16, 12, 96, "inference", 2, 2),
        (200, 16, 12, 96, "training", 2, 2),
    ]
    assert both[0].label == both[0].name == "200,16,12,96 L2 bi"
    assert [s.mode for s in shapes("--shapes", "100,1,40,32")] == ["inference"]
    assert shapes("--shapes", "1,1,16,16", "--mode", "stream")[0].mode == "stream"
    assert shapes() == shapes("--shapes", "table") == choose(["table"])
    assert shapes("--grid", "6", "--seed", "1") == grid.draw(6, seed=1)
    assert len(shapes("--grid", "6", "--shapes", "1,2,3,4")) == 7
    assert shapes("--grid", "6", "--layers", "2") == grid.draw(6, seed=0, layers=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1,2,3"], "four positive integers"),
        (["1,2,3,4,5"], "four positive integers"),
        (["1,2,0,4"], "four positive integers"),
        (["1,-2,3,4"], "four positive integers"),
        (["1,2,3,4", "--layers", "0"], "layers must be positive"),
        (["2,1,3,4", "--mode", "stream"], "one step at a time"),
        (["1,1,3,4", "--mode", "stream", "--directions", "2"], "one step at a time"),
        (["no_such_shape"], "no shape named"),
    ],
)
def test_wrong_sizes_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare.selected(compare.arguments().parse_args(["--shapes", *words]))


def test_floor() -> None:
    """Reads of weights bound a step at batch 1, multiply-adds a large batch; training has three times both."""
    reads = {size: 1e-9 * size / read_bandwidth(CEILINGS, size, 1) for size in (16 << 20, 32 << 20)}
    one = Shape("one step", 1, 1, 1024, 1024, "stream")
    assert floor(Result(one, 1), CEILINGS) == pytest.approx(reads[32 << 20])
    assert floor(Result(replace(one, mode="training"), 1), CEILINGS) == pytest.approx(reads[32 << 20])
    assert floor(Result(replace(one, mode="inference"), 1), CEILINGS) == pytest.approx(reads[16 << 20])
    many = Shape("many rows", 10, 64, 64, 64)
    for mode in ("inference", "training"):
        shape = replace(many, mode=mode)
        assert floor(Result(shape, 1), CEILINGS) == pytest.approx(shape.flops / 100e9)
    steps = Shape("a sequence", 10, 1, 1024, 1024)
    product = steps.all_flops / 2 / 100e9  # that of x with all steps
    assert floor(Result(steps, 1), CEILINGS) == pytest.approx(9 * reads[16 << 20] + product)
    both = floor(Result(replace(steps, mode="training"), 1), CEILINGS)
    assert both == pytest.approx(19 * reads[16 << 20] + 3 * product + 0.9 * product)


def test_ceilings_are_read_between_their_points() -> None:
    """Bandwidth is interpolated in the logarithm of the size; rates of other numbers of threads scale from one."""
    assert geometric_mean([1, 4]) == pytest.approx(2)
    assert fma_peak(CEILINGS, 2) == 190
    assert fma_peak(CEILINGS, 4) == 400
    assert read_bandwidth(CEILINGS, 1, 1) == 400
    assert read_bandwidth(CEILINGS, 1 << 17, 1) == pytest.approx(250)
    assert read_bandwidth(CEILINGS, 1 << 30, 1) == 100


def test_ceilings_of_several_looks_are_the_best_of_them() -> None:
    """A later look may have read less, and can only raise rates; the report says what the looks had at the least."""
    one = {"float32": {"1": 90.0, "2": 100.0}}
    look = {"gflop_per_s": one, "read": CEILINGS["read"][:1], "round_trip_ns": 120.0}
    merged = best(best(CEILINGS, look), look)
    assert merged["gflop_per_s"]["float32"] == CEILINGS["gflop_per_s"]["float32"]
    assert merged["read"] == CEILINGS["read"]
    assert merged["round_trip_ns"] == min(120.0, CEILINGS["round_trip_ns"])
    assert looks_of(merged, "2") == [190, 100, 100]
    assert "190 GFLOP/s on 2 threads (at the least 100 in 3 looks), float32" in markdown(
        {"header": HEADER, "ceilings": merged}, []
    )
    assert best(look, CEILINGS)["gflop_per_s"]["float32"] == CEILINGS["gflop_per_s"]["float32"]
    assert "looks" not in markdown({"header": HEADER, "ceilings": CEILINGS}, [])


def test_whole_jobs_agree_and_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Both programs train small models to the same losses and say the same letters; the table has a line for each."""
    pytest.importorskip("torch", reason="PyTorch is not installed, nothing to compare with: install torch")
    sizes = [
        "--threads",
        "1",
        "--rounds",
        "1",
        "--seconds",
        "0.001",
        "--letters",
        "2",
        "--no-compile",
        "--generate",
        "tiny_text",
    ]
    results = whole_job.main(["--jobs", "tiny", "tiny_numbers", *sizes])
    assert [r["job"] for r in results] == ["tiny", "tiny_numbers", "generate"]
    assert all(r["difference"] < 1e-4 for r in results[:2])
    said = capsys.readouterr().out
    assert said.count("\n| tiny") == 2
    assert "geometric mean of 2 ratios" in said


def test_arithmetic_of_whole_jobs() -> None:
    """Ratios are paired within rounds, against the faster PyTorch; losses that differ are an error."""
    times = {"quadgate": [1.0, 2.0, 4.0], "torch": [3.0, 4.0, 20.0], "torch.compile": [9.0, 9.0, 9.0]}
    assert whole_job.paired(times) == 3
    assert whole_job.check_losses({"quadgate": [1.0, 2.0], "torch": [1.0, 2.001]}) == pytest.approx(5e-4)
    with pytest.raises(RuntimeError, match=r"the losses differ by 1\.0e-01"):
        whole_job.check_losses({"quadgate": [1.0], "torch": [1.1]})
    job = whole_job.JOBS["readme"]
    assert job.multiply_adds == 3 * 32 * 50 * (4 * 256 * (48 + 256) + 256 * 96)
    forecast = whole_job.JOBS["forecast"]
    assert forecast.multiply_adds == 3 * 256 * (365 * 4 * 128 * (32 + 128) + 128)
