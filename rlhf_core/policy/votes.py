"""Human votes as pairs for direct preference optimisation.

A tie and "both bad" say that neither edit is better: label .5. "Can't judge" is left out. A vote's
strength (1 to 3) becomes the margin that its pair has to reach (`DPOConfig.strength_margin`). Votes
that simulated judges gave are left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf_core.editing import dynamics
from rlhf_core.errors import DataError
from rlhf_core.policy.dpo import PairBatch
from rlhf_core.reward.dataset import Vote, check_songs, collate
from rlhf_core.types import AudioState

LABELS = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
CHECK_AT_ONCE = 64


class VotePairs:
    """The votes of a snapshot, drawn in random order, each once before any twice per draw."""

    def __init__(self, votes: Sequence[Vote], states: Mapping[str, AudioState]) -> None:
        self.votes, self.states = list(votes), states
        if not self.votes:
            raise DataError("there is no vote to learn from")
        check_songs(self.votes, states)
        for start in range(0, len(self.votes), CHECK_AT_ONCE):
            self._check_legal(self.votes[start : start + CHECK_AT_ONCE])

    def __len__(self) -> int:
        return len(self.votes)

    def _check_legal(self, votes: Sequence[Vote]) -> None:
        """A policy can only be said to like an edit that it could have made."""
        for side in ("a", "b"):
            edits = [vote.edit_a if side == "a" else vote.edit_b for vote in votes]
            batch, actions = collate(edits, self.states)
            changed = (dynamics.replay(batch, actions).actions != actions).any(1)
            if bool(changed.any()):
                vote = votes[int(changed.int().argmax())]
                raise DataError(
                    f"vote {vote.vote_id}: edit {side} has actions that are not legal on the "
                    f"beats of song {vote.song_id}. Were they corrected after the vote? Leave "
                    "the vote out, or restore the beats."
                )

    def draw(
        self, n_steps: int, generator: torch.Generator, device: torch.device | str = "cpu"
    ) -> PairBatch:
        """Pairs in which at least n_steps actions are scored."""
        chosen: list[Vote] = []
        steps = 0
        while steps < n_steps:
            for index in torch.randperm(len(self.votes), generator=generator).tolist():
                chosen.append(self.votes[index])
                steps += 2 * self.votes[index].passage.n_beats
                if steps >= n_steps:
                    break
        return self.pairs(chosen, device)

    def pairs(self, votes: Sequence[Vote], device: torch.device | str = "cpu") -> PairBatch:
        """Some votes as pairs."""
        where = str(device)
        batch, actions_a = collate([vote.edit_a for vote in votes], self.states, where)
        _, actions_b = collate([vote.edit_b for vote in votes], self.states, where)
        label: Tensor = torch.tensor([LABELS[vote.choice] for vote in votes], device=device)
        strength: Tensor = torch.tensor(
            [max(0, (vote.strength or 1) - 1) for vote in votes], dtype=label.dtype, device=device
        )
        return PairBatch(batch, actions_a, actions_b, label, strength)
