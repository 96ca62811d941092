"""The editing policy: hears the whole passage once, then decides beat by beat.

`encode` reads the passage in both directions (a local convolution, then self-attention); it runs
once per episode. `decide` is a small network on the encoded beat, on the beat that would have
followed the last one kept (their difference is what a join at this beat would sound like), and on
the edit so far (`dynamics.history`). A value head sits beside the action head.

Shapes: B passages padded to T beats, D = AgentConfig.width. There is no dropout: acting and
updating must see the same distribution. Features come in raw; the normaliser (mean, deviation of
the library's beats) is part of the weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from rlhf_core.audio.feature_table import BEAT_FEATURES
from rlhf_core.checkpoints import load_checkpoint, save_checkpoint
from rlhf_core.editing import dynamics
from rlhf_core.editing.actions import N_ACTIONS
from rlhf_core.errors import CheckpointError, ConfigError

CLAMP = 6.0  # normalised features beyond this many deviations say nothing more
POSITION_WAVES = 4
MAX_BAR = 8


@dataclass(frozen=True)
class AgentConfig:
    """Sizes of the network. width must be a multiple of heads; kernel odd."""

    width: int = 64
    layers: int = 2
    heads: int = 4
    feedforward: int = 128
    kernel: int = 5
    hidden: int = 128

    def __post_init__(self) -> None:
        if self.width % self.heads or self.kernel % 2 == 0 or min(asdict(self).values()) < 1:
            raise ConfigError(
                f"agent: width {self.width} must be a multiple of heads {self.heads}, kernel "
                f"{self.kernel} odd, and all sizes positive"
            )


class _Block(nn.Module):
    """Pre-norm self-attention and feed-forward, both residual."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.up = nn.Linear(config.width, config.feedforward)
        self.down = nn.Linear(config.feedforward, config.width)

    def forward(self, x: Tensor, key_mask: Tensor) -> Tensor:
        size, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(size, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=key_mask)
        x = x + self.out(mixed.transpose(1, 2).reshape(size, length, width))
        down: Tensor = self.down(functional.gelu(self.up(self.norm2(x))))
        return x + down


class Heard(NamedTuple):
    """Beats of P encoded passages as `Agent.decide` looks them up: row p * T + t is beat t of p.

    here, follow: (P * T, D + hidden), the encoded beat and what the first layer makes of it.
    """

    here: Tensor
    follow: Tensor


class Agent(nn.Module):
    """See the module's first lines. `decide` gives logits without the mask applied."""

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: AgentConfig | None = None) -> None:
        super().__init__()
        self.config = config or AgentConfig()
        self.bf16 = False  # the encoder's matrix products in bfloat16 (autocast); see `encode`
        width, hidden = self.config.width, self.config.hidden
        self.register_buffer("feature_mean", torch.zeros(BEAT_FEATURES))
        self.register_buffer("feature_std", torch.ones(BEAT_FEATURES))
        self.inputs = nn.Linear(BEAT_FEATURES + 2 * POSITION_WAVES + MAX_BAR, width)
        self.local = nn.Conv1d(width, width, self.config.kernel, padding=self.config.kernel // 2)
        self.blocks = nn.ModuleList(_Block(self.config) for _ in range(self.config.layers))
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(3 * width + dynamics.HISTORY, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.action_head = nn.Linear(hidden, N_ACTIONS)
        self.value_head = nn.Linear(hidden, 1)
        for head in (self.action_head, self.value_head):  # begin near uniform and near 0
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    @property
    def device(self) -> torch.device:
        return self.feature_mean.device

    def set_normaliser(self, mean: Tensor, std: Tensor) -> None:
        """Mean and deviation (121,) of the library's beats; columns that never vary get 1."""
        if mean.shape != (BEAT_FEATURES,) or std.shape != (BEAT_FEATURES,):
            raise ConfigError(
                f"the normaliser needs {BEAT_FEATURES} values, got {tuple(mean.shape)} and "
                f"{tuple(std.shape)}"
            )
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def encode(self, batch: dynamics.PassageBatch) -> Tensor:
        """(B, T, D) float32; padding is 0 and changes nothing.

        With `bf16` its matrix products are in bfloat16; decisions stay in float32, because acting
        and updating have to agree on small differences of log-probabilities.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self._encode(batch).float()

    def _encode(self, batch: dynamics.PassageBatch) -> Tensor:
        valid = batch.valid
        features = (batch.features - self.feature_mean) / self.feature_std
        position = _position(valid.shape[1], batch.features.device).expand(len(valid), -1, -1)
        phase = functional.one_hot(batch.bar_phase.clamp(0, MAX_BAR - 1), MAX_BAR)
        x = torch.cat([features.clamp(-CLAMP, CLAMP), position, phase.to(features.dtype)], dim=-1)
        live = valid.unsqueeze(-1).to(x.dtype)
        x = functional.gelu(self.inputs(x)) * live
        x = x + functional.gelu(self.local(x.transpose(1, 2))).transpose(1, 2)
        key_mask = valid[:, None, None, :].expand(-1, 1, valid.shape[1], -1)
        for block in self.blocks:
            x = block(x, key_mask)
        encoded: Tensor = self.norm(x) * live
        return encoded

    def hear(self, encoded: Tensor) -> Heard:
        """Prepare encoded passages (P, T, D) for decisions: the first layer's share of each beat.

        The first layer is linear, so its products with beats are worth computing once a passage
        instead of once a decision; every edit of the passage looks them up.
        """
        flat, width = encoded.flatten(0, 1), self.config.width
        weight, bias = self.first.weight, self.first.bias
        here = functional.linear(flat, weight[:, :width], bias)
        follow = functional.linear(flat, weight[:, width : 2 * width])
        return Heard(torch.cat([flat, here], dim=1), torch.cat([flat, follow], dim=1))

    def decide(
        self, heard: Heard, here: Tensor, follow: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 10) before masking, and the value (N,) of the edit so far.

        here, follow: (N,) long, rows of `heard`: this beat, and the beat that would have followed
        the last one kept. history: (N, HISTORY).
        """
        sizes = [self.config.width, self.config.hidden]
        beat, first = torch.split(functional.embedding(here, heard.here), sizes, dim=1)
        after, second = torch.split(functional.embedding(follow, heard.follow), sizes, dim=1)
        edit = torch.cat([(beat - after).abs(), history], dim=1)
        x = first + second + functional.linear(edit, self.first.weight[:, 2 * sizes[0] :])
        x = functional.gelu(self.second(functional.gelu(x)))
        return self.action_head(x), self.value_head(x).squeeze(-1)

    def decide_all(
        self, encoded: Tensor, last_kept: Tensor, history: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`decide` on every beat of one edit of each passage: logits (B, T, 10), values (B, T).

        encoded (B, T, D), last_kept (B, T), history (B, T, HISTORY).
        """
        size, length = last_kept.shape
        here = torch.arange(size * length, device=encoded.device).view(size, length)
        follow = here[:, :1] + follow_index(last_kept, length)
        logits, values = self.decide(
            self.hear(encoded), here.flatten(), follow.flatten(), history.flatten(0, 1)
        )
        return logits.view(size, length, -1), values.view(size, length)


def follow_index(last_kept: Tensor, length: int) -> Tensor:
    """The beat that would have sounded next had nothing been cut: the one after the last kept."""
    return (last_kept + 1).clamp(0, length - 1)


def _position(length: int, device: torch.device) -> Tensor:
    """(T, 2 * POSITION_WAVES) sines and cosines with periods of 8, 16, 32 and 64 beats."""
    beat = torch.arange(length, device=device, dtype=torch.float32).unsqueeze(-1)
    period = 8.0 * 2.0 ** torch.arange(POSITION_WAVES, device=device, dtype=torch.float32)
    angle = 2 * math.pi * beat / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def agent_content(agent: Agent) -> dict[str, Any]:
    """What a policy checkpoint holds about the network itself."""
    weights = {name: value.detach().cpu().clone() for name, value in agent.state_dict().items()}
    return {"agent_config": asdict(agent.config), "state_dict": weights}


def agent_from_content(path: Path, content: dict[str, Any], device: str = "cpu") -> Agent:
    """Rebuild the network from a loaded checkpoint, or CheckpointError naming what is amiss."""
    try:
        agent = Agent(AgentConfig(**content["agent_config"]))
        agent.load_state_dict(content["state_dict"])
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: the policy's weights do not fit ({first}).") from error
    for name, value in agent.state_dict().items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite. Retrain.")
    return agent.to(device)


def save_policy(path: Path, agent: Agent, **more: Any) -> None:
    """Write a policy checkpoint; `more` (lineage, step, …) goes in beside the weights."""
    save_checkpoint(path, "policy", {**agent_content(agent), **more})


def load_policy(path: Path, device: str = "cpu") -> Agent:
    """Read the network of a policy checkpoint, in eval mode."""
    agent = agent_from_content(path, load_checkpoint(path, "policy", device), device)
    return agent.eval()
