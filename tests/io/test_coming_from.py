"""The blocks of docs that need files or objects of other programs, run as they stand.

Files are written by the programs themselves. Paddle, DyNet, JAX and TensorFlow are represented by objects of the same
shapes and names; that their conversions are right is tested elsewhere.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw, lstm

DOCS = Path(__file__).parents[2] / "docs"
INPUTS, H = 5, 4
Names = dict[str, Any]


def traced(torch: Any) -> Any:
    """Return a traced module that holds an LSTM as decoder.rnn."""

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.LSTM(INPUTS, H)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = Decoder()

        def forward(self, x: Any) -> Any:
            return self.decoder.rnn(x)[0]

    return torch.jit.trace(Whole(), torch.zeros(2, 1, INPUTS))


def pytorch() -> Names:
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: install torch")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(INPUTS, H, batch_first=True)})

    model = Model()
    torch.save(model.state_dict(), "model.pt")
    torch.jit.save(traced(torch), "model.jit")
    return {"torch": torch, "model": model, "module": model.encoder["lstm"]}


def keras() -> Names:
    from test_io_keras import keras  # skips the test where Keras is missing

    layer = keras.layers.LSTM(H, return_sequences=True, name="lstm")
    model = keras.Sequential([keras.layers.Input((None, INPUTS)), layer])
    model.save("model.keras")
    model.save("m.keras")
    model.save_weights("model.weights.h5")
    older = keras.layers.LSTM(H, name="lstm_1")
    model = keras.Sequential([keras.layers.Input((None, INPUTS)), older])
    model.save("model.h5")
    model.save_weights("kept.weights.h5")
    Path("kept.weights.h5").rename("weights.hdf5")
    arrays = [draw(INPUTS, 4 * H), draw(H, 4 * H), draw(8 * H)]  # of a CuDNNLSTM
    return {"layer": layer, "arrays": arrays, "x": draw(2, 3, INPUTS)}


def onnx() -> Names:
    import test_io_onnx_quantised as quantised  # skips the test where onnx or onnxruntime is missing

    here = Path.cwd()
    for name, proto in (
        ("model", quantised.model()),
        ("model.int8", quantised.quantised(here, quantised.model(), True)),
    ):
        proto.graph.node[0].name = "/encoder/LSTM" + ("_quant" if "int8" in name else "")
        quantised.onnx.save(proto, f"{name}.onnx")
    stacked("stacked.onnx")
    return {"onnx": quantised.onnx}


def stacked(path: str) -> Any:
    """Export a batch first module of two layers, and return it."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    module = torch.nn.LSTM(INPUTS, H, num_layers=2, batch_first=True).eval()
    torch.onnx.export(module, (torch.zeros(2, 3, INPUTS),), path, dynamo=False)
    return module


def jax() -> Names:
    def dense(inputs: int, outputs: int) -> Any:
        return {"kernel": draw(inputs, outputs), "bias": draw(outputs)}

    cells = {f"i{g}": dense(INPUTS, H) for g in "ifgo"} | {f"h{g}": dense(H, H) for g in "ifgo"}
    linear = {"w": draw(INPUTS + H, 4 * H), "b": draw(4 * H)}

    class Param(SimpleNamespace):
        def __getitem__(self, _: Any) -> Any:
            return self.value

    nnx = {
        f"dense_{k}": SimpleNamespace(kernel=Param(value=draw(n, 4 * H)), bias=Param(value=draw(4 * H)))
        for k, n in (("i", INPUTS), ("h", H))
    }
    equinox = {"weight_ih": draw(4 * H, INPUTS), "weight_hh": draw(4 * H, H), "bias": draw(4 * H)}
    return {"params": {"params": cells, "lstm/linear": linear}, "cell": SimpleNamespace(**nnx, **equinox), "H": H}


def others() -> Names:
    class Held(SimpleNamespace):
        def numpy(self) -> Any:
            return self.value

        as_array = numpy

    state = {name: Held(value=value) for name, value in qg.io.to_torch(lstm(INPUTS, H)).items()}
    cell = {f"0.cell.{name.removesuffix('_l0')}": value for name, value in state.items()}
    parts = [Held(value=v) for v in (draw(4 * H, INPUTS), draw(4 * H, H), draw(4 * H))]
    np.savez("arrays.npz", **lstm(INPUTS, H).state_dict(prefix="encoder."))
    arrays = {name: np.array(value) for name, value in lstm(INPUTS, H).state_dict().items()}
    Path("arrays.pkl").write_bytes(pickle.dumps(arrays))
    return {
        "layer": SimpleNamespace(state_dict=lambda: state | cell),
        "builder": SimpleNamespace(get_parameters=lambda: [parts]),
        **dict(zip(("w_ih", "w_hh", "bias"), (p.numpy() for p in parts), strict=True)),
    }


def tensorflow() -> Names:
    variables = {
        "rnn/basic_lstm_cell/kernel": draw(INPUTS + H, 4 * H),
        "rnn/basic_lstm_cell/bias": draw(4 * H),
    }
    reader = SimpleNamespace(get_tensor=variables.get, get_variable_to_shape_map=lambda: variables)
    shapes = [(2, 3, INPUTS), *4 * [(H, INPUTS)], *4 * [(H, H)], None, None, None, *4 * [(H,)], None, None, None, None]
    tensors = [None if shape is None else draw(*shape) for shape in shapes]
    details = {
        "op_name": "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "inputs": [-1 if t is None else k for k, t in enumerate(tensors)],
    }
    interpreter = SimpleNamespace(
        allocate_tensors=lambda: None, _get_ops_details=lambda: [details], get_tensor=lambda k: tensors[k]
    )
    return {
        "tf": SimpleNamespace(
            train=SimpleNamespace(load_checkpoint=lambda _: reader),
            lite=SimpleNamespace(Interpreter=lambda _: interpreter),
        )
    }


def threads() -> Names:
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed: install threadpoolctl")
    return {"train": lambda: None}


def kit() -> Names:
    return keras() | {"train": qg.train}


PREPARED: dict[str, Callable[[], Names]] = {
    "coming-from.md": pytorch,
    "coming-from/pytorch.md": pytorch,
    "coming-from/keras.md": keras,
    "coming-from/onnx.md": onnx,
    "coming-from/jax.md": jax,
    "coming-from/others.md": others,
    "coming-from/tensorflow.md": tensorflow,
    "threads.md": threads,
    "train.md": kit,
}


def blocks(page: Path) -> list[str]:
    """Return the blocks marked as prepared, without the indentation of a list."""
    found = re.findall(r"^( *)```python prepared\n(.*?)^ *```", page.read_text(), re.M | re.S)
    return [re.sub(f"^{indent}", "", text, flags=re.M) for indent, text in found]


@pytest.mark.filterwarnings("ignore")  # of the other programs
@pytest.mark.parametrize("name", PREPARED)
def test_blocks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"np": np, "qg": qg, **PREPARED[name]()}
    found = blocks(DOCS / name)
    assert found
    for number, block in enumerate(found, 1):
        exec(compile(block, f"{name}, prepared block {number}", "exec"), names)


@pytest.mark.filterwarnings("ignore")
def test_a_stack_that_pytorch_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("onnx", reason="onnx is not installed")
    module = stacked("stacked.onnx")
    names: Names = {"qg": qg}
    exec(next(block for block in blocks(DOCS / "coming-from/onnx.md") if "stacked.onnx" in block), names)
    x = draw(2, 3, INPUTS)
    torch = pytest.importorskip("torch")
    want = module(torch.from_numpy(x.astype(np.float32)))[0].detach().numpy()
    assert np.abs(names["lstm"](x.astype(np.float32))[0] - want).max() < 1e-6


def test_every_block_of_the_pages_runs():
    """But the two that need a cluster of Spark, and half a minute of torch's compiler."""
    pages = {str(page.relative_to(DOCS)): page for page in DOCS.glob("**/*.md")}
    assert {name for name, page in pages.items() if blocks(page)} == set(PREPARED)
    marks = [(name, mark) for name, page in pages.items() for mark in re.findall(r"```python(.*)", page.read_text())]
    assert {mark for _, mark in marks} == {"", " prepared", " no-run"}
    assert sorted(name for name, mark in marks if mark == " no-run") == ["gallery.md", "torch.md"]
