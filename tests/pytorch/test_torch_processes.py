"""Modules in several processes: equal gradients, and parameters that are whole for the time of a call only."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch was built without torch.distributed"
)

# Ends by _exit: a thread of gloo may still hold the last tensors of a collective, whose release asks for the GIL, and
# PyTorch aborts where the interpreter is ending by then. destroy_process_group does not wait for these threads.
WORKER = """
import os, sys
import torch, quadgate.torch
import torch.distributed as dist

rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
torch.manual_seed(rank)  # DDP gives all the parameters of the first
lstm = quadgate.torch.LSTM(3, 5, 2, bidirectional=True, dtype=torch.float64)
module = torch.nn.parallel.DistributedDataParallel(lstm)
x = torch.randn(6, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
optimizer = torch.optim.SGD(module.parameters(), 0.1)
alone = torch.nn.LSTM(3, 5, 2, bidirectional=True, dtype=torch.float64)
for _ in range(2):
    alone.load_state_dict(lstm.state_dict())
    alone.zero_grad()
    optimizer.zero_grad()
    module(x[:, 2 * rank : 2 * rank + 2])[0].square().mean().backward()
    alone(x)[0].square().mean().backward()  # the whole batch
    for p, q in zip(lstm.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-11, atol=1e-13)
        both = [torch.empty_like(p.grad) for _ in range(2)]
        dist.all_gather(both, p.grad)
        assert torch.equal(*both)
    optimizer.step()
dist.destroy_process_group()
os._exit(0)
"""


def run(source: str, path: Any) -> None:
    """Run the source in two processes with their number and the path of a file to meet at."""
    command = [sys.executable, "-c", textwrap.dedent(source)]
    workers = [
        subprocess.Popen([*command, str(rank), str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(2)
    ]
    try:
        said = [worker.communicate(timeout=240)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()  # closes its pipe
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)


def test_two_processes_have_equal_gradients(tmp_path):
    """DistributedDataParallel over gloo: half a batch each, and the gradients of the whole in both."""
    run(WORKER, tmp_path / "meeting")


SHARDED = """
import os, sys
import torch, quadgate.torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

rank, path = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)

def shard(module, kind):
    if kind == "FSDP":
        return FullyShardedDataParallel(module, device_id=torch.device("cpu"), use_orig_params=True)
    mesh = init_device_mesh("cpu", (2,))
    for part in (module[0], module):
        fully_shard(part, mesh=mesh)
    return module

def train(kind, cls):
    torch.manual_seed(0)
    module = shard(torch.nn.Sequential(cls(3, 5, 2, dtype=torch.float64)), kind)
    first = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    x = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
    results = []
    for _ in range(3):
        optimizer.zero_grad()
        y = module(x)[0]
        y.square().sum().backward()
        optimizer.step()
        results.append(y.detach())
    with torch.no_grad():
        results.append(module(x[:1])[0])  # calls too short to compare contents
        module.load_state_dict(first)
        results.append(module(x[:1])[0])
    return results

for kind in ("fully_shard", "FSDP"):
    for ours, theirs in zip(train(kind, quadgate.torch.LSTM), train(kind, torch.nn.LSTM), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
dist.barrier()
os._exit(0)
"""


def test_sharded_parameters(tmp_path):
    """They give their memory back after each call, and come again at the same place, with the same versions."""
    pytest.importorskip("torch.distributed.fsdp", reason="this PyTorch has no torch.distributed.fsdp")
    if not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("this PyTorch has no fully_shard, which came with 2.6")
    run(SHARDED, tmp_path / "meeting")
