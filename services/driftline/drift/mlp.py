"""A residual network, fitted with torch (extra `train`) and applied without it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from driftline.drift.affine import Ridge
from driftline.drift.base import Compensator, Matrix, Pairs, Wide

_HIDDEN = 256
_EPOCHS = 200
_PATIENCE = 20
_BATCH = 256


def _gelu(x: Wide) -> Wide:
    """The tanh form, as in `torch.nn.functional.gelu(approximate="tanh")`."""
    result: Wide = 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    return result


class ResidualMlp(Compensator):
    """`q A + b + W2 gelu(W1 q + b1) + b2` (Drift-Adapter, arXiv 2509.23471): A by ridge, the rest by Adam on MSE.

    256 hidden units; stopped when a held-out tenth has not improved for 20 epochs.
    """

    kind = "residual_mlp"

    def __init__(self, base: Ridge, layers: Mapping[str, Matrix]) -> None:
        self._base = base
        self._layers = {name: np.asarray(array, dtype=np.float64) for name, array in layers.items()}
        self.new_dimension, self.old_dimension = base.new_dimension, base.old_dimension

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> ResidualMlp:
        """Raises ImportError without the `train` extra."""
        import torch

        torch.manual_seed(seed)
        base = Ridge.fit(pairs, seed)
        train, held = pairs.split(0.1, seed)

        def tensors(part: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
            residual = part.old - base._map(part.new.astype(np.float64))
            return torch.from_numpy(part.new), torch.from_numpy(residual.astype(np.float32))

        (x, y), (x_held, y_held) = tensors(train), tensors(held)
        net = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], _HIDDEN),
            torch.nn.GELU(approximate="tanh"),
            torch.nn.Linear(_HIDDEN, y.shape[1]),
        )
        # The last layer begins at zero: the network begins as the ridge map and can only be kept if it beats it.
        torch.nn.init.zeros_(net[2].weight)
        torch.nn.init.zeros_(net[2].bias)
        optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
        best, best_state, since = float("inf"), {k: v.clone() for k, v in net.state_dict().items()}, 0
        for _ in range(_EPOCHS):
            for rows in torch.randperm(len(x)).split(_BATCH):
                optimiser.zero_grad()
                torch.nn.functional.mse_loss(net(x[rows]), y[rows]).backward()
                optimiser.step()
            with torch.no_grad():
                loss = float(torch.nn.functional.mse_loss(net(x_held), y_held))
            since += 1
            if loss < best:
                best, best_state, since = loss, {k: v.clone() for k, v in net.state_dict().items()}, 0
            if since >= _PATIENCE:
                break
        names = {"0.weight": "w1", "0.bias": "b1", "2.weight": "w2", "2.bias": "b2"}
        return cls(base, {names[k]: v.numpy().astype(np.float32) for k, v in best_state.items()})

    def _map(self, queries: Wide) -> Wide:
        layers = self._layers
        hidden = _gelu(queries @ layers["w1"].T + layers["b1"])
        mapped: Wide = self._base._map(queries) + hidden @ layers["w2"].T + layers["b2"]
        return mapped

    def arrays(self) -> Mapping[str, Matrix]:
        base = {f"base.{name}": array for name, array in self._base.arrays().items()}
        return {**base, **{name: array.astype(np.float32) for name, array in self._layers.items()}}

    @classmethod
    def build(cls, arrays: Mapping[str, Matrix], new: int, old: int) -> ResidualMlp:
        base = {name.removeprefix("base."): a for name, a in arrays.items() if name.startswith("base.")}
        layers = {name: a for name, a in arrays.items() if not name.startswith("base.")}
        return cls(Ridge.build(base, new, old), layers)
