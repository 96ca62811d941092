"""Editing as a Gymnasium environment: thin shells over the pure functions of `dynamics`.

One step is one beat; an episode is one passage. The dense reward is paid on the last step, all
others pay 0 (the learned reward is added by the trainer). Illegal actions count as KEEP;
`action_masks()` is what sb3-contrib's MaskablePPO asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rlhf_core.editing import dynamics
from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.dense_reward import dense_reward
from rlhf_core.editing.dynamics import EditState, PassageBatch
from rlhf_core.errors import EditError
from rlhf_core.types import AudioState, BoolArray, FloatArray, Passage

OBSERVATION_LIMIT = 5.0


class BatchedStep(NamedTuple):
    """observation (B, OBSERVATION), reward (B,), done (B,) bool, mask (B, 10) bool."""

    observation: Tensor
    reward: Tensor
    done: Tensor
    mask: Tensor


class BatchedAudioEditingEnv:
    """B passages edited side by side, beat by beat. A finished row pays 0 and stays finished."""

    def __init__(self, batch: PassageBatch) -> None:
        self.batch = batch
        self._state = dynamics.initial(batch)

    @property
    def state(self) -> EditState:
        return self._state

    def reset(self) -> BatchedStep:
        """Begin again at the first beat of every passage."""
        self._state = dynamics.initial(self.batch)
        return self._seen(torch.zeros(self.batch.size, device=self.batch.device))

    def step(self, actions: Tensor) -> BatchedStep:
        """Decide on one beat in every row. Args: actions (B,) long, 0..9."""
        was_done = dynamics.terminal(self.batch, self._state)
        self._state = dynamics.transition(self.batch, self._state, actions)
        reward = torch.zeros(self.batch.size, device=self.batch.device)
        ends = dynamics.terminal(self.batch, self._state) & ~was_done
        if bool(ends.any()):
            earned = dense_reward(self.batch, self._state.actions)
            reward = torch.where(ends, earned, reward)
        return self._seen(reward)

    def _seen(self, reward: Tensor) -> BatchedStep:
        return BatchedStep(
            dynamics.observe(self.batch, self._state),
            reward,
            dynamics.terminal(self.batch, self._state),
            dynamics.mask(self.batch, self._state),
        )


class AudioEditingEnv(gymnasium.Env[FloatArray, np.int64]):
    """One passage an episode, drawn at random on `reset` (or given as options={"item": index}).

    Observations are `dynamics.observe`; info holds "action_mask" and, at the end, "actions".
    """

    def __init__(self, items: Sequence[tuple[AudioState, Passage]]) -> None:
        if not items:
            raise EditError("the environment needs at least one passage to edit, got none")
        self._items = tuple(items)
        # Every passage alone: one env does not pay for the padding of a longer one.
        self._batches = [PassageBatch.from_passages([item]) for item in self._items]
        self._shell = BatchedAudioEditingEnv(self._batches[0])
        self.action_space = spaces.Discrete(N_ACTIONS)
        self.observation_space = spaces.Box(
            -OBSERVATION_LIMIT, OBSERVATION_LIMIT, (dynamics.OBSERVATION,), np.float32
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        super().reset(seed=seed)
        item = (options or {}).get("item")
        index = int(self.np_random.integers(len(self._items))) if item is None else int(item)
        if not 0 <= index < len(self._items):
            raise EditError(f"item {index} is not one of the {len(self._items)} passages")
        self._shell = BatchedAudioEditingEnv(self._batches[index])
        step = self._shell.reset()
        return self._observation(step), {"action_mask": step.mask[0].numpy(), "item": index}

    def step(self, action: np.int64 | int) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        if not 0 <= int(action) < N_ACTIONS:
            raise EditError(f"action {action} is not one of 0..{N_ACTIONS - 1}")
        step = self._shell.step(torch.tensor([int(action)]))
        done = bool(step.done[0])
        info: dict[str, Any] = {"action_mask": step.mask[0].numpy()}
        if done:
            info["actions"] = self._shell.state.actions[0].numpy()
        return self._observation(step), float(step.reward[0]), done, False, info

    def action_masks(self) -> BoolArray:
        """(10,) bool: the legal actions now."""
        mask: BoolArray = dynamics.mask(self._shell.batch, self._shell.state)[0].numpy()
        return mask

    @staticmethod
    def _observation(step: BatchedStep) -> FloatArray:
        observation: FloatArray = step.observation[0].numpy()
        return observation
