"""qg.onnx.load and store of models whose weights lie in other files, which must be in the model's folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw, lstm
from onnx_models import FLOAT, INPUTS, H, compare, helper, model, onnx, simple, tensor, weights


def test_external_data(tmp_path, monkeypatch):
    """Within the model's folder it is read; outside, or beyond the file's end, refused."""
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    proto = simple()
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    compare(qg.onnx.load(folder / "m.onnx"), simple())
    assert set(qg.io.read(folder / "m.onnx")) == {"W", "R", "B"}
    (tmp_path / "outside.bin").write_bytes((folder / "weights.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    stored = onnx.load(folder / "m.onnx", load_external_data=False)

    def moved(**entries: str) -> Any:
        other = onnx.ModelProto()
        other.CopyFrom(stored)
        for entry in other.graph.initializer[0].external_data:
            entry.value = entries.get(entry.key, entry.value)
        (folder / "other.onnx").write_bytes(other.SerializeToString())
        return folder / "other.onnx"

    for location in ("../outside.bin", str(tmp_path / "outside.bin"), "link.bin", "none.bin", "inner", "", "a\0b"):
        with pytest.raises(ValueError, match=r"other\.onnx"):
            qg.onnx.load(moved(location=location))
    for entries in ({"length": "1000000000000"}, {"offset": "-4"}, {"length": "-1"}, {"offset": "x"}, {"length": "4"}):
        with pytest.raises(ValueError, match=r"other\.onnx"):
            qg.onnx.load(moved(**entries))
    with pytest.raises(ValueError, match="external data"):
        qg.onnx.load((folder / "m.onnx").read_bytes())
    with pytest.raises(
        ValueError, match=r"'link\.bin', which is a symbolic link out of the .*outside\.bin: put the file"
    ):
        qg.onnx.load(moved(location="link.bin"))
    with pytest.raises(ValueError, match=r"'\.\./outside\.bin', which is no file in the model's folder"):
        qg.onnx.load(moved(location="../outside.bin"))
    monkeypatch.chdir(tmp_path)  # in which onnx would look for the data of a model in memory
    for call in (lambda: qg.onnx.load(stored), lambda: qg.onnx.store(stored, None, lstm(INPUTS, H))):
        with pytest.raises(
            ValueError, match=r"^the model: .*'W' has external data, .*: pass the path, or a model that"
        ):
            call()
    (tmp_path / "weights.bin").write_bytes(bytes((folder / "weights.bin").stat().st_size))  # zeros, of someone else
    for call in (lambda: qg.onnx.load(stored), lambda: qg.onnx.store(stored, None, lstm(INPUTS, H))):
        with pytest.raises(ValueError, match=r"'W' has external data"):
            call()


def external(name: str, location: str, *dims: int, **entries: str) -> Any:
    result = onnx.TensorProto(name=name, data_type=FLOAT, dims=dims, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        result.external_data.add(key=key, value=value)
    return result


def test_external_data_that_is_shared(tmp_path):
    """Some tensors may share bytes of a file; many that all point at one file would fill the memory."""
    proto = simple()
    tied, names = draw(1 << 16), [f"t{k}" for k in range(100)]
    (tmp_path / "w").write_bytes(tied.tobytes() * 2)
    half = {"length": str(tied.nbytes)}
    proto.graph.initializer.extend([external(name, "w", 1 << 16, **half) for name in names[:4]])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    assert np.array_equal(qg.io.read(tmp_path / "m.onnx")["t3"], tied)
    proto.graph.initializer.extend([external(name, "w", 1 << 17) for name in names[4:]])
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    for read in (qg.io.read, qg.io.networks, qg.load, qg.onnx.load):
        with pytest.raises(
            ValueError, match=r"m\.onnx: its tensors have much more external data than their files hold"
        ):
            read(tmp_path / "m.onnx")


def test_external_data_of_a_functions_default(tmp_path, monkeypatch):
    """It is read in the model's folder, and not in that of the process."""
    w = weights()
    literal = helper.make_node("Constant", [], ["W"])
    literal.attribute.add(name="value", ref_attr_name="w", type=onnx.AttributeProto.TENSOR)
    cell = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], "cell", hidden_size=H)
    opsets = [helper.make_opsetid("", 17)]
    default = helper.make_attribute("w", external("W", "w.bin", *w["W"].shape))
    own = helper.make_function(
        "own", "Net", ["X", "R", "B"], ["Y"], [literal, cell], opsets, attribute_protos=[default]
    )
    rest = [tensor(n, w[n]) for n in "RB"]
    proto = model([helper.make_node("Net", ["X", "R", "B"], ["Y"], domain="own")], rest, [own])
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(bytes(w["W"].nbytes))
    with pytest.raises(ValueError, match="no file in the model's folder"):
        qg.onnx.load(path)
    (tmp_path / "model" / "w.bin").write_bytes(w["W"].tobytes())
    compare(qg.onnx.load(path), simple())
