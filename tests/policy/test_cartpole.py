"""An outside check of PPOTrainer: gymnasium's CartPole, a task that it was not written for.

The stand-in agent has the real one's two parts, but hears nothing: what it decides on is the
pole's state, handed over where an edit's history would be.
"""

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.editing.dynamics import PassageBatch
from rlhf_core.policy.losses import masked_log_probs
from rlhf_core.policy.ppo import PPOConfig, PPOTrainer
from rlhf_core.policy.rollout import Rollout

EPISODES, STEPS = 16, 200


class PoleAgent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.heads = nn.Linear(64, N_ACTIONS + 1)
        self.device = torch.device("cpu")

    def encode(self, batch: PassageBatch) -> Tensor:
        return torch.zeros(batch.size, batch.width, 1)

    def hear(self, encoded: Tensor) -> Tensor:
        return encoded

    def decide(
        self, heard: Tensor, here: Tensor, follow: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor]:
        out = self.heads(self.body(history))
        return out[..., :N_ACTIONS], out[..., N_ACTIONS]


def play(agent: PoleAgent, seed: int) -> tuple[Rollout, Tensor]:
    """Sixteen episodes side by side, the mask leaving two of the ten actions."""
    torch.manual_seed(seed)
    env = gymnasium.make_vec("CartPole-v1", EPISODES, max_episode_steps=STEPS)
    mask = torch.arange(N_ACTIONS).expand(EPISODES, -1) < 2
    seen, _ = env.reset(seed=seed)
    live, columns = np.ones(EPISODES, dtype=bool), []
    while live.any() and len(columns) < STEPS:
        state = torch.as_tensor(seen)
        with torch.no_grad():
            logits, value = agent.decide(state, state, state, state)
        log_probs = masked_log_probs(logits, mask)
        action = torch.distributions.Categorical(logits=log_probs).sample()
        taken = log_probs.gather(1, action[:, None])[:, 0]
        columns.append((action, taken, value, state, torch.as_tensor(live.copy())))
        seen, _, fell, over, _ = env.step(action.numpy())
        live &= ~(fell | over)
    env.close()
    action, taken, value, state, valid = (
        torch.stack(column, 1) for column in zip(*columns, strict=True)
    )
    width, lengths = valid.shape[1], valid.sum(1)
    batch = PassageBatch(
        torch.zeros(EPISODES, width, BEAT_FEATURES), valid.float(), torch.zeros_like(action),
        torch.full((EPISODES,), 4), lengths,
    )  # fmt: skip
    nothing = torch.zeros_like(action)
    rollout = Rollout(
        batch, batch, torch.arange(EPISODES), action * valid, taken * valid, value * valid,
        mask[:, None].expand(-1, width, -1), state, nothing, valid,
    )  # fmt: skip
    return rollout, lengths.float()


def test_ppo_balances_the_pole() -> None:
    """Chance lasts about 22 steps; of 200 possible ones a trained policy manages 180."""
    torch.manual_seed(0)
    agent, unused = PoleAgent(), PoleAgent()
    config = PPOConfig(
        lr=5e-3, epochs=8, minibatch_episodes=4, gamma=0.98, gae_lambda=0.9,
        kl_weight=0.0, update_kl=0.1,
    )  # fmt: skip
    trainer = PPOTrainer(agent, unused, config)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    lasted = []
    for update in range(40):
        rollout, lengths = play(agent, update)
        lasted.append(float(lengths.mean()))
        if lasted[-1] > 190:
            break
        trainer.update(rollout, rollout.batch.valid / 10, generator)
    assert lasted[0] < 40 and max(lasted) > 180, lasted
