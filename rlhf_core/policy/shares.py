"""Training on several processes (torchrun): each takes its share of a minibatch.

    torchrun --nproc_per_node 2 -m rlhf_core.train_rlhf --data_dir songs --output_dir run

Every process rolls out the same edits from the same seed and encodes and learns from its part of
each minibatch; weighted gradients are averaged, so weights stay the same everywhere, and the same
as one process would have got up to rounding. Outside torchrun all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from rlhf_core.reward.parallel import average_gradients, world


def my_rows(rows: Tensor) -> Tensor:
    """This process's part of a minibatch's rows; never empty (see `weight`)."""
    rank, size = world()
    part = torch.tensor_split(rows, size)[rank]
    return part if len(part) else rows[:1]


def weight(rows: Tensor, count: Tensor) -> float:
    """How much the mean over this process's part counts: so that averages over processes are
    the whole minibatch's. count: (B,) terms of the mean that each episode has.
    """
    rank, size = world()
    if size == 1:
        return 1.0
    part = torch.tensor_split(rows, size)[rank]
    return float(count[part].sum()) * size / max(float(count[rows].sum()), 1.0)


def descend(
    loss: Tensor, parameters: Iterable[nn.Parameter], optimizer: Optimizer, longest: float
) -> float:
    """One optimiser step by the gradients of all processes; their length before it was cut."""
    weights = list(parameters)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(weights)
    norm = torch.nn.utils.clip_grad_norm_(weights, longest)
    optimizer.step()
    return float(norm)


def averaged(log: dict[str, float], weights: dict[str, float]) -> dict[str, float]:
    """Figures of the parts as figures of the whole; `weights` by name, 1 where none is given."""
    _, size = world()
    if size == 1:
        return log
    values = torch.tensor([log[key] * weights.get(key, 1.0) for key in log], dtype=torch.double)
    distributed.all_reduce(values)
    return dict(zip(log, (values / size).tolist(), strict=True))


def anyone(flag: bool) -> bool:
    """Whether any process says so: all of them then do the same, and none waits for the others."""
    _, size = world()
    if size == 1:
        return flag
    said = torch.tensor(int(flag))
    distributed.all_reduce(said)
    return bool(said)
