"""`train.Sequential` against PyTorch, live: 20 steps from equal weights, with lengths and truncated."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support.small_models import LENGTHS, SYMBOLS, T, classifier, data, tagger


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed, nothing to compare with: install torch")


def twin(torch, model, final):
    """The same model in PyTorch, in float64, with the same weights."""
    embedding, net, dense = (model.layers[k] for k in (0, 1, -1))
    sizes = {"num_layers": net.num_layers, "bidirectional": net.bidirectional, "batch_first": True}
    parts = torch.nn.ModuleList(
        [
            torch.nn.Embedding(embedding.num_embeddings, embedding.embedding_dim),
            torch.nn.LSTM(net.input_size, net.hidden_size, **sizes),
            torch.nn.Linear(dense.units_in, dense.units_out),
        ]
    ).double()

    def load(module, values):
        module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in values.items()})

    for module, layer in zip(parts, (embedding, net, dense), strict=True):
        load(module, net.state_dict() if layer is net else layer.params)
    for name, value in parts[1].named_parameters():
        if "bias_hh" in name:
            value.requires_grad_(False)  # its gradient would count twice in the norm

    def outputs(x, lengths=None, state=None):
        y = parts[0](torch.from_numpy(x))
        if lengths is None:
            y, state = parts[1](y, state)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                y, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
            )
            y, state = parts[1](packed, state)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
        return parts[2](state[0][-1] if final else y), state

    return parts, outputs


def ours_of(parts, model):
    """PyTorch's parameters, or their gradients, by our names."""
    last = len(model.layers) - 1
    net = {name: value.detach().numpy() for name, value in parts[1].named_parameters()}
    net = {n.replace("bias_ih", "bias"): v for n, v in net.items() if "bias_hh" not in n}
    result = {"0.weight": parts[0].weight.detach().numpy()} | {f"1.{name}": value for name, value in net.items()}
    result |= {f"{last}.{name}": value.detach().numpy() for name, value in parts[2].named_parameters()}
    return result


OPTIMIZERS = {
    "sgd": (lambda: train.SGD(0.1, 0.9, nesterov=True), lambda o, p: o.SGD(p, 0.1, 0.9, nesterov=True)),
    "adam": (lambda: train.Adam(0.01, clip_norm=0.05), lambda o, p: o.Adam(p, 0.01)),
    "adamw": (lambda: train.AdamW(0.01, weight_decay=0.1), lambda o, p: o.AdamW(p, 0.01, weight_decay=0.1)),
}


def clip(torch, parameters, bound):
    """As ``clip_grad_norm_``, which adds 1e-6 to the norm."""
    norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
    assert norm > bound
    for p in parameters:
        p.grad *= bound / norm


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("final", [False, True], ids=["every step", "final state"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_twenty_steps_equal_pytorchs(torch, optimizer, final, lengths):
    """In float64, where roundings (1e-16) would have to be amplified a million times to reach the tolerance."""
    model = (classifier if final else tagger)("float64")
    parts, outputs = twin(torch, model, final)
    mine, theirs = OPTIMIZERS[optimizer]
    model.compile("softmax_cross_entropy", mine())
    free = [p for p in parts.parameters() if p.requires_grad]
    other = theirs(torch.optim, free)
    for step in range(20):
        x, y = data(not final, seed=step)
        loss = model.train_on_batch(x, y, lengths=lengths)
        z, _ = outputs(x, lengths)
        each = torch.nn.functional.cross_entropy(z.reshape(-1, 5), torch.from_numpy(y).reshape(-1), reduction="none")
        if lengths is not None and not final:
            each = each[torch.from_numpy((np.arange(T) < lengths[:, None]).ravel())]
        want = each.mean()
        other.zero_grad()
        want.backward()
        if optimizer == "adam":
            clip(torch, free, 0.05)
        other.step()
        assert abs(loss - want.item()) <= 1e-10
    for name, value in ours_of(parts, model).items():
        assert np.abs(model.params[name] - value).max() <= 1e-10, name


def test_truncated_backpropagation_equals_pytorchs(torch):
    """A stateful model passes its states on, and the gradient ends where the batch begins."""
    lstm = qg.LSTM(8, 10, dtype="float64", rng=0)
    model = train.Sequential([train.Embedding(SYMBOLS, 8), lstm, train.Dense(10, 5)], stateful=True, rng=0)
    parts, outputs = twin(torch, model, False)
    model.compile("softmax_cross_entropy", train.SGD(0.5))
    other, state = torch.optim.SGD([p for p in parts.parameters() if p.requires_grad], 0.5), None
    for step in range(6):
        if step == 4:
            model.reset_states()
            state = None
        x, y = data(seed=step)
        loss = model.train_on_batch(x, y)
        z, state = outputs(x, None, state)
        state = tuple(part.detach() for part in state)
        want = torch.nn.functional.cross_entropy(z.reshape(-1, 5), torch.from_numpy(y).reshape(-1))
        other.zero_grad()
        want.backward()
        other.step()
        assert abs(loss - want.item()) <= 1e-12
    with pytest.raises(ValueError, match="states of 6 rows, got a batch of 3: keep the number, or call reset_states"):
        model.train_on_batch(x[:3], y[:3])
