"""Where tensors are computed: choosing a device, its precision, and what to do when it is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rlhf_core.errors import ConfigError


def check_device(name: str) -> str:
    """The device if this machine has it, else ConfigError saying which ones it has."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} is not a device; try cpu or cuda:0") from error
    if device.type == "cpu":
        return name
    if device.type != "cuda":
        raise ConfigError(f"--device {name!r}: only cpu and cuda devices are supported")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        have = f"it has {count} CUDA device(s)" if count else "it has no CUDA device"
        raise ConfigError(f"--device {name}: not on this machine, {have}. Use --device cpu.")
    return name


def own_device(name: str) -> str:
    """The device of this process: under torchrun, "cuda" means each process's own GPU.

    It becomes the process's current one, which is where nccl sends from if nobody says otherwise
    (torch.distributed's documentation, "Launch utility"): call this before joining the group.
    Raises ConfigError for a numbered GPU that several processes would share, which nccl refuses.
    """
    if "LOCAL_RANK" not in os.environ or not name.startswith("cuda"):
        return name
    if name != "cuda":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                f"--device {name} is one GPU for all processes of torchrun; --device cuda gives "
                "each its own"
            )
        return name
    own = check_device(f"cuda:{os.environ['LOCAL_RANK']}")
    torch.cuda.set_device(own)
    return own


def backend(device: str) -> str:
    """How processes on this kind of device talk to each other.

    Beside a GPU's gradients there are figures and pickles, which lie in the CPU's memory.
    """
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"


def use_threads(count: int) -> None:
    """Set torch's threads deliberately: on small batches more are slower, not faster."""
    if count < 1:
        raise ConfigError(f"--threads is {count}, must be at least 1")
    torch.set_num_threads(count)


def native_bf16(device: str = "cpu") -> bool:
    """Whether bfloat16 matrix products are native there: then faster, elsewhere far slower."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Turn a GPU that is out of memory into a ConfigError that says what to do about it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"the GPU ran out of memory ({first}). {advice}") from error
