"""Several processes as one: the same weights as one process with as many times the batch.

    torchrun --nproc_per_node 2 -m rlhf_core.reward.pretraining --steps 1000 --time_limit 0 …

Every process draws the same data from the same seed, takes its share of each batch and averages
gradients with the others (gloo on CPUs, nccl on GPUs). Without torchrun all of this does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed.nn  # before any group: its functions keep, as a default, the one they find
from torch import Tensor, distributed, nn


def world() -> tuple[int, int]:
    """This process's rank, and how many there are; (0, 1) outside a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


@contextmanager
def process_group(backend: str = "gloo", meet: str | None = None) -> Iterator[int]:
    """Join the group that torchrun started, if it did; yields this process's rank.

    meet: where the processes find each other, for `init_process_group`; torchrun says it itself.
    None of the group's threads is left at the end: one that is still at work while Python ends
    aborts the process.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size < 2:
        yield 0
        return
    rank = int(os.environ["RANK"])
    distributed.init_process_group(backend, meet, rank=rank, world_size=size)
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


@contextmanager
def quietly_elsewhere() -> Iterator[Path]:
    """For all processes but the first, which lend their hands: a folder that vanishes, no words."""
    with (
        TemporaryDirectory() as folder,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        yield Path(folder)


def is_mine(number: int) -> bool:
    """Whether this process does the piece of work of this number, where pieces are independent."""
    rank, size = world()
    return number % size == rank


def everyones(mine: Any) -> list[Any]:
    """What each process has, by rank; just this one's outside a process group.

    For pieces of this program only: they travel as pickles.
    """
    _, size = world()
    if size == 1:
        return [mine]
    gathered: list[Any] = [None] * size
    distributed.all_gather_object(gathered, mine)
    return gathered


def share_of(index: Tensor) -> tuple[Tensor, float]:
    """This process's part of a batch (W,), and the weight of its mean loss in the whole batch's.

    The weight makes unequal parts right: the average over processes is the whole batch's mean.
    """
    rank, size = world()
    mine = index[rank::size]
    return mine, len(mine) * size / len(index)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; none counts as zero."""
    _, size = world()
    if size == 1:
        return
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in chosen]
    flat = torch.cat([part.reshape(-1) for part in parts])
    distributed.all_reduce(flat)
    flat /= size
    sizes = [p.numel() for p in chosen]
    for parameter, part in zip(chosen, torch.split(flat, sizes), strict=True):
        parameter.grad = part.view_as(parameter).clone()
