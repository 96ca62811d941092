"""Where a pretraining is, kept in a file every so many steps, so that it can go on after a stop.

Kept are the weights, the optimiser, the random numbers' state and the batches still to come; the
synthetic edits are not, they are drawn again from the seed. A run that goes on has the same bits as
one that was never stopped (on the CPU, with as many threads). The file is replaced atomically: a
kill at any moment leaves the last whole one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_core.checkpoints import load_checkpoint, save_checkpoint
from rlhf_core.errors import ConfigError
from rlhf_core.files import set_aside
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.parallel import everyones, world
from rlhf_core.types import AudioState

KIND = "bootstrap_progress"
EVERY = 100  # steps, about ten seconds


@dataclass
class Course:
    """How far a training is. queue: batches (W,) still to come of the current pass over the data.

    seconds: spent in training; limit: seconds allowed for it, where the clock ends it.
    """

    step: int = 0
    queue: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0
    limit: float | None = None


class Keeper:
    """Keeps a training's course in a file, and takes it up again.

    Args:
        path: the file. identity: of settings and songs (see `identity_of`): a file of another run
        is not taken up. resume: True where there must be something to go on from, False to start
        anew, None to go on where that is possible. What is not taken up is set aside.
    """

    def __init__(
        self, path: Path, identity: str, every: int = EVERY, resume: bool | None = None
    ) -> None:
        if every < 1:
            raise ConfigError(f"progress is kept every {every} steps; it must be at least 1")
        self.path, self.identity, self.every, self.resume = path, identity, every, resume

    def take_up(
        self, trunk: torch.nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator
    ) -> Course:
        """Put a kept course back into trunk, optimiser and generator; a new one where none is.

        Raises ConfigError where there must be one and is none, CheckpointError if it is damaged.
        """
        kept = everyones(self._read() if world()[0] == 0 else None)[0]
        if kept is None:
            return Course()
        trunk.load_state_dict(kept["trunk"])
        optimiser.load_state_dict(kept["optimiser"])
        generator.set_state(kept["generator"].cpu())
        queue = [batch.cpu() for batch in kept["queue"]]
        return Course(kept["step"], queue, kept["seconds"], kept["limit"])

    def _read(self) -> dict[str, Any] | None:
        if self.resume is not False and self.path.is_file():
            kept = load_checkpoint(self.path, KIND)
            if kept["identity"] == self.identity:
                return kept
            if self.resume:
                raise ConfigError(
                    f"{self.path} is of a run with other settings or songs: give those again, or "
                    "leave --resume out to start anew."
                )
        elif self.resume:
            raise ConfigError(f"{self.path}: nothing to resume there. Leave --resume out.")
        set_aside(self.path)
        return None

    def keep(
        self,
        course: Course,
        trunk: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        """Write the course down, if it is time to; the first process does it for all."""
        if course.step % self.every or world()[0]:
            return
        content = {
            "identity": self.identity,
            "trunk": trunk.state_dict(),
            "optimiser": optimiser.state_dict(),
            "generator": generator.get_state(),
            **vars(course),
        }
        save_checkpoint(self.path, KIND, content)

    def done(self) -> None:
        """The training has ended: nothing to go on with."""
        if world()[0] == 0:
            self.path.unlink(missing_ok=True)


def identity_of(settings: Any, config: RewardModelConfig, states: Sequence[AudioState]) -> str:
    """Hash of all that decides what a pretraining does: two runs with the same may be joined."""
    facts = {"settings": asdict(settings), "config": asdict(config), "processes": world()[1]}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for state in states:
        for part in (state.features, state.grid.times, state.grid.bar_phase):
            digest.update(part.tobytes())
    return digest.hexdigest()
