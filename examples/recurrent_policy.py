"""Recurrent policies: one call with ``resets=`` in the place of a loop over time.

    pip install ".[torch]"
    python examples/recurrent_policy.py

In reinforcement learning, episodes end in the middle of the sequences that a policy is trained on, and its LSTM must
start anew there. torch.nn.LSTM cannot, so libraries loop over time in Python as soon as one row has such a step; the
loop below is that of sb3_contrib (RecurrentActorCriticPolicy._process_sequence). quadgate.torch.LSTM takes the marks of
the episodes' first steps as ``resets`` and runs the sequence in one call. This program makes both ways compute the loss
of an update, compares all gradients, and prints how long they take.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from command_line import at_least

try:
    import quadgate.torch
    import torch
except ImportError as error:
    sys.exit(f'{error}; only this example needs it: pip install ".[torch]" installs it')

State = tuple[torch.Tensor, torch.Tensor]
Process = Callable[[torch.nn.Module, torch.Tensor, State, torch.Tensor], torch.Tensor]


def by_a_loop(lstm: torch.nn.Module, features: torch.Tensor, state: State, starts: torch.Tensor) -> torch.Tensor:
    """Return the outputs (T, B, H): step by step, with states multiplied by 0 where an episode starts."""
    outputs = []
    for x, start in zip(features, starts, strict=True):
        keep = (~start).to(x.dtype).view(1, -1, 1)
        y, state = lstm(x.unsqueeze(0), (keep * state[0], keep * state[1]))
        outputs.append(y)
    return torch.cat(outputs)


def in_one_call(lstm: torch.nn.Module, features: torch.Tensor, state: State, starts: torch.Tensor) -> torch.Tensor:
    """Return the same."""
    return lstm(features, state, resets=starts)[0]


class Policy(torch.nn.Module):
    """An LSTM over observations, and linear layers for the actions' scores and the value.

    Parameters
    ----------
    kind : torch.nn.LSTM or quadgate.torch.LSTM
    process : function
        One of the two above.
    """

    def __init__(self, kind: type[torch.nn.Module], process: Process, features: int, hidden: int, actions: int) -> None:
        super().__init__()
        self.lstm, self.process = kind(features, hidden), process
        self.head = torch.nn.Linear(hidden, actions + 1)

    def forward(self, features: torch.Tensor, state: State, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logarithms of the actions' probabilities (T, B, A) and the values (T, B)."""
        scores = self.head(self.process(self.lstm, features, state, starts))
        return scores[..., :-1].log_softmax(-1), scores[..., -1]


def rollout(steps: int, rows: int, features: int, actions: int) -> dict[str, torch.Tensor]:
    """Return random observations, actions, advantages and returns, and episodes of 50 steps on average."""
    starts = torch.rand(steps, rows) < 1 / 50
    return {
        "features": torch.randn(steps, rows, features),
        "starts": starts,
        "actions": torch.randint(actions, (steps, rows, 1)),
        "advantages": torch.randn(steps, rows),
        "returns": torch.randn(steps, rows),
    }


def update(policy: Policy, data: dict[str, torch.Tensor], state: State) -> float:
    """Compute the loss of actor and critic and its gradients; return the loss."""
    policy.zero_grad()
    logs, values = policy(data["features"], state, data["starts"])
    actor = -(logs.gather(-1, data["actions"])[..., 0] * data["advantages"]).mean()
    loss = actor + 0.5 * (values - data["returns"]).square().mean() + 0.01 * (logs.exp() * logs).sum(-1).mean()
    loss.backward()
    return float(loss.detach())


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=at_least(1), default=128, help="T, steps of a rollout")
    parser.add_argument("--rows", type=at_least(1), default=8, help="B, environments side by side")
    parser.add_argument("--hidden", type=at_least(1), default=256, help="H, units of the LSTM")
    parser.add_argument("--quick", action="store_true", help="a small network and few rounds")
    chosen = parser.parse_args()
    steps, rows, hidden, rounds = chosen.steps, chosen.rows, chosen.hidden, 15
    if chosen.quick:
        steps, hidden, rounds = 32, 32, 3
    features, actions = 64, 6

    torch.manual_seed(0)
    loop = Policy(torch.nn.LSTM, by_a_loop, features, hidden, actions)
    call = Policy(quadgate.torch.LSTM, in_one_call, features, hidden, actions)
    call.load_state_dict(loop.state_dict())
    data = rollout(steps, rows, features, actions)
    state = (torch.randn(1, rows, hidden), torch.randn(1, rows, hidden))
    print(
        f"T {steps}, B {rows}, I {features}, H {hidden}; {int(data['starts'].sum())} episodes start within the rollout"
    )

    losses = [update(policy, data, state) for policy in (loop, call)]
    print(f"loss by a loop {losses[0]:.6f}, in one call {losses[1]:.6f}")
    worst = 0.0
    for (name, p), q in zip(loop.named_parameters(), call.parameters(), strict=True):
        worst = max(worst, float((p.grad - q.grad).norm() / p.grad.norm()))
        if not torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5 * float(p.grad.abs().max())):
            sys.exit(f"the gradients of {name} differ")
    print(f"gradients are equal: relative difference {worst:.1e} at most")

    times = [seconds(lambda policy=policy: update(policy, data, state), rounds) for policy in (loop, call)]
    print(f"an update takes {times[0] * 1e3:.2f} ms by a loop, {times[1] * 1e3:.2f} ms in one call")
    print(f"RESULT speedup={times[0] / times[1]:.2f}")


if __name__ == "__main__":
    main()
