"""torch.nn.LSTM on the CPU."""

from __future__ import annotations

import torch
from shapes import Shape

from .base import STREAM_STEPS, Array, Arrays, parameter_names, repeat


class TorchPeer:
    """Inference under inference_mode, and a training step with the gradients of x and of all parameters."""

    version = str(torch.__version__)

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        torch.set_num_threads(threads)
        self.mode = shape.mode
        lstm = torch.nn.LSTM(shape.I, shape.H, shape.layers, bidirectional=shape.directions == 2)
        with torch.no_grad():
            for name in parameter_names(shape):
                given = torch.from_numpy(arrays[name])
                if name.startswith("bias"):
                    getattr(lstm, name.replace("bias", "bias_ih")).copy_(given)
                    getattr(lstm, name.replace("bias", "bias_hh")).zero_()
                else:
                    getattr(lstm, name).copy_(given)
        self.lstm = lstm
        self.x = torch.from_numpy(arrays["x"])
        if shape.mode == "training":
            self.dy = torch.from_numpy(arrays["dy"])
            self.x.requires_grad_(True)
            self.leaves = [self.x, *lstm.parameters()]
            y, grads = self._train()
            by_name = {name: g.numpy() for (name, _), g in zip(lstm.named_parameters(), grads[1:], strict=True)}
            result = {"y": y.detach().numpy(), "dx": grads[0].numpy()}
            result.update({"d" + n: by_name[n.replace("bias", "bias_ih")] for n in parameter_names(shape)})
            return result
        lstm.eval()
        with torch.inference_mode():
            shape_h = (shape.layers * shape.directions, shape.B, shape.H)
            self.state = (torch.zeros(shape_h), torch.zeros(shape_h))
            for _ in range(STREAM_STEPS if shape.mode == "stream" else 1):
                y, (h, c) = self._run()
        return {"y": y.numpy(), "h": h.numpy(), "c": c.numpy()}

    def _run(self) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        if self.mode != "stream":
            result: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = self.lstm(self.x)
            return result
        y, self.state = self.lstm(self.x, self.state)
        return y, self.state

    def _train(self) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        y, _ = self.lstm(self.x)
        return y, torch.autograd.grad(y, self.leaves, self.dy)

    def time(self, calls: int) -> float:
        if self.mode == "training":
            return repeat(self._train, calls)
        with torch.inference_mode():
            return repeat(self._run, calls)


Peer = TorchPeer
