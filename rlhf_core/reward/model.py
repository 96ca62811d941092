"""The reward model: how much an edit of a passage would be liked, as one number.

`LearnedRewardModel` reads, for each beat of a passage, 125 values (121 beat features as the
featuriser gives them, not normalised, and the 4 edit-aware ones) and the id of the action, runs a
pre-norm transformer over the beats and pools them into an embedding phi; the score is w·phi.

Conventions: B edits, T beats (padded), D = width of the embedding; `mask` is True on valid beats.
Padding changes nothing: padded beats are zeroed before they can be seen, and left out of attention
and pooling.
Scores are logits: score(a) - score(b) is the log odds of "a is preferred", and only differences
within a passage mean anything. No clamp here: that belongs to `LearnedRewardConfig`.

Sources: Vaswani et al. 2017 (attention), Xiong et al. 2020 (pre-norm), Su et al. 2021 (rotary
positions), Christiano et al. 2017 (a reward from comparisons).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlhf_core.audio.feature_table import BEAT_FEATURES, EDIT_FEATURES, INPUT_FEATURES
from rlhf_core.editing.actions import N_ACTIONS, Action
from rlhf_core.errors import ConfigError, DataError

OUTPUT_POSITION = EDIT_FEATURES.index("output_position")
POOL_SHRINK = 2.0  # beats of nothing added to every mean: three cut beats say less than thirty
NORMAL_LIMIT = 5.0  # normalised beat features are cut here: one odd beat must not rule a score
MIN_SPREAD = 0.02  # of a column's usual deviation: a passage in which it is constant stays so
CONTRAST = 32  # channels in which a join is compared with what would have followed
JOIN_BEATS = 4
LEVELS = 48  # channels of which the spread over the output is heard, not only the mean
ROTARY_BASE = 200.0  # passages have at most 96 beats, so the slowest pair turns about once


@dataclass(frozen=True)
class RewardModelConfig:
    """Sizes of the network. Saved in the checkpoint and rebuilt from it."""

    d_model: int = 128
    n_layers: int = 3
    n_heads: int = 4
    ff: int = 256
    embedding: int = 192  # width of phi

    def __post_init__(self) -> None:
        if min(self.d_model, self.n_layers, self.n_heads, self.ff, self.embedding) < 1:
            raise ConfigError(f"reward model sizes must be positive, got {self}")
        if self.d_model % (2 * self.n_heads):
            raise ConfigError(
                f"d_model {self.d_model} must be a multiple of 2 x n_heads = {2 * self.n_heads}"
            )


class Normaliser(nn.Module):
    """Standardises the 121 beat features with statistics frozen in the checkpoint.

    Shape: (..., 121) -> (..., 121).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(BEAT_FEATURES))
        self.register_buffer("std", torch.ones(BEAT_FEATURES))

    def fit(self, features: Tensor, valid: Tensor) -> None:
        """Set the statistics from (B, T, 121) features, on beats where valid (B, T) only."""
        rows = features[valid].double()
        if not len(rows):
            raise DataError("cannot normalise: there is no valid beat")
        self.mean.copy_(rows.mean(0))
        # A column that does not vary here may vary elsewhere: leave its scale alone.
        spread = rows.std(0, correction=0)
        self.std.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))

    def forward(self, features: Tensor) -> Tensor:
        normal: Tensor = (features - self.mean) / self.std
        return normal.clamp(-NORMAL_LIMIT, NORMAL_LIMIT)


def within_passage(beats: Tensor, mask: Tensor) -> Tensor:
    """Beats (B, T, F) as deviations from the mean of their passage's valid beats; 0 as padding.

    Votes compare edits of one passage, so it is the contrasts inside it that decide.
    """
    valid = mask[..., None]
    count = mask.sum(1)[:, None, None]
    beats = beats.masked_fill(~valid, 0.0)
    centred = (beats - beats.sum(1, keepdim=True) / count) * valid
    scale = (centred.square().sum(1, keepdim=True) / count + MIN_SPREAD**2).sqrt()
    return (centred / scale).clamp(-NORMAL_LIMIT, NORMAL_LIMIT)


def rotary(n_beats: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (T, width) of the rotary position code, for both halves of the channels."""
    rates = ROTARY_BASE ** (-torch.arange(0, width, 2, device=device) / width)
    angles = (torch.arange(n_beats, device=device)[:, None] * rates).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels of (..., T, width) by their position's angle."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    result: Tensor = torch.addcmul(x * cos, turned, sin)
    return result


def repeated(x: Tensor, edits: int) -> Tensor:
    """Rows of passages for each of their edits. Shape: (W, T, C) -> (W * edits, T, C)."""
    return x if edits == 1 else x.repeat_interleave(edits, dim=0)


def shared_by(passages: Tensor, edits: Tensor) -> Tensor:
    """Each edit's values and its passage's. Shape: (W, T, C), (B, T, C) -> (B, T, C)."""
    grouped: Tensor = passages[:, None] + edits.view(len(passages), -1, *edits.shape[1:])
    return grouped.flatten(0, 1)


class Block(nn.Module):
    """One pre-norm transformer layer without dropout.

    Shape: x (B, T, D), attend (B, 1, 1, T) True where a beat may be looked at, None where all may
    -> (B, T, D).
    """

    def __init__(self, config: RewardModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.norm_attention = nn.LayerNorm(config.d_model)
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        self.norm_mlp = nn.LayerNorm(config.d_model)
        self.mlp = nn.Sequential(
            nn.Linear(config.d_model, config.ff),
            nn.GELU("tanh"),
            nn.Linear(config.ff, config.d_model),
        )

    def forward(self, x: Tensor, attend: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        size, n_beats, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(size, n_beats, 3, self.n_heads, -1)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        # Not in bfloat16 on a CPU: backwards, attention would take six times as long.
        with torch.autocast("cpu", enabled=False):
            query, key = rotate(qkv[:2].float(), cos, sin)
            mixed = F.scaled_dot_product_attention(query, key, qkv[2].float(), attn_mask=attend)
        x = x + self.out(mixed.transpose(1, 2).reshape(size, n_beats, width))
        result: Tensor = x + self.mlp(self.norm_mlp(x))
        return result


class LearnedRewardModel(nn.Module):
    """Preference score of edits.

    Shape: features (B, T, 125), action_ids (B, T) int64, mask (B, T) bool -> (B,).
    """

    def __init__(self, config: RewardModelConfig | None = None) -> None:
        super().__init__()
        self.config = config or RewardModelConfig()
        width = self.config.d_model
        self.normaliser = Normaliser()
        self.action = nn.Embedding(N_ACTIONS, width)
        self.action_gain = nn.Embedding(N_ACTIONS, width)
        # Each beat as it is, and against the other beats of its passage.
        self.beat = nn.Linear(INPUT_FEATURES + BEAT_FEATURES, width)
        self.before = nn.Linear(width, width, bias=False)
        self.after = nn.Linear(width, width, bias=False)
        self.contrast = nn.Linear(BEAT_FEATURES, CONTRAST, bias=False)
        self.join = nn.Linear(3 * CONTRAST + 1, width)
        self.blocks = nn.ModuleList(Block(self.config) for _ in range(self.config.n_layers))
        self.norm = nn.LayerNorm(width)
        self.token = nn.Linear(width, width)
        phi = self.config.embedding
        self.widths = [4 * width, 3 * BEAT_FEATURES, 3 * LEVELS]  # of the parts of `pool`
        self.pooled = nn.Linear(self.widths[0], phi)
        self.moments = nn.Linear(self.widths[1], phi, bias=False)
        self.level = nn.Linear(BEAT_FEATURES, LEVELS)
        self.level_action = nn.Embedding(N_ACTIONS, LEVELS)
        self.levels = nn.Linear(self.widths[2], phi, bias=False)
        self.refine = nn.Sequential(
            nn.Linear(phi, 2 * phi), nn.GELU("tanh"), nn.Linear(2 * phi, phi)
        )
        self.head = nn.Linear(phi, 1, bias=False)
        nn.init.normal_(self.action_gain.weight, std=0.5)
        nn.init.normal_(self.level_action.weight, std=0.2)

    def embed(self, features: Tensor, action_ids: Tensor, mask: Tensor, edits: int = 1) -> Tensor:
        """Embedding phi of each edit. Shape: as `forward` -> (B, D). edits: as in `pool`."""
        return self.mix(self.pool(features, action_ids, mask, edits))

    def pool(self, features: Tensor, action_ids: Tensor, mask: Tensor, edits: int = 1) -> Tensor:
        """All that is known of each edit as one row. Shape: as `forward` -> (B, sum(self.widths)).

        Pooled over all beats, those that sound, those that are cut, and those that sound weighted
        by their place in the output (how the edit goes on); and the beats' own features likewise.
        edits: so many rows in turn are edits of one passage (same beats and mask); what they share
        is then computed once for all of them.
        """
        check_inputs(features, action_ids, mask)
        whole = bool(mask.all())
        beats = self.normaliser(features[::edits, :, :BEAT_FEATURES])  # (B / edits, T, 121)
        own = within_passage(beats, mask[::edits])
        x = self._beats(beats, own, features[..., BEAT_FEATURES:])
        # Zeroed, so that a padded neighbour looks like the edge of an unpadded sequence.
        gain = F.embedding(action_ids, 1 + self.action_gain.weight)
        x = torch.addcmul(self.action(action_ids), x, gain)
        x = x if whole else x.masked_fill(~mask[..., None], 0.0)
        before, after = F.pad(x[:, :-1], (0, 0, 1, 0)), F.pad(x[:, 1:], (0, 0, 0, 1))
        x = x + self.before(before) + self.after(after)
        x = x + self.join(self._joins(own, action_ids, mask, whole))
        x = x if whole else x.masked_fill(~mask[..., None], 0.0)
        width = self.config.d_model // self.config.n_heads
        cos, sin = rotary(x.shape[1], width, x.device)
        attend = None if whole else mask[:, None, None, :]
        for block in self.blocks:
            x = block(x, attend, cos, sin)
        tokens = F.gelu(self.token(self.norm(x)), approximate="tanh")
        sounds = mask & (action_ids != Action.CUT)
        parts = torch.stack([mask, sounds, mask & ~sounds], dim=1)
        place = features[..., BEAT_FEATURES + OUTPUT_POSITION].masked_fill(~mask, 0.5) - 0.5
        shares = parts / (parts.sum(-1, keepdim=True) + POOL_SHRINK)
        shares = torch.cat([shares, (2 * shares[:, 1] * place)[:, None]], dim=1)
        moments = shares[:, 1:].reshape(len(own), -1, shares.shape[-1]) @ own
        parts_of = (shares @ tokens).flatten(1), moments.view(len(shares), -1)
        return torch.cat([*parts_of, self._levels(own, action_ids, sounds, place)], dim=1)

    def _beats(self, beats: Tensor, own: Tensor, edit: Tensor) -> Tensor:
        """`self.beat` on beats and own (W, T, 121) and what the edits made of them (B, T, 4)."""
        song, changed = torch.split(self.beat.weight, [2 * BEAT_FEATURES, edit.shape[-1]], dim=1)
        shared = F.linear(torch.cat([beats, own], dim=-1), song, self.beat.bias)
        return shared_by(shared, F.linear(edit, changed))

    def mix(self, pool: Tensor) -> Tensor:
        """The last layers, from pooled beats to phi. Shape: result of `pool` -> (B, D)."""
        tokens, own, levels = torch.split(pool, self.widths, dim=1)
        pooled: Tensor = self.pooled(tokens) + self.moments(own) + self.levels(levels)
        # The square terms of a taste ("not too short, not too long") need a bend after pooling.
        refined: Tensor = pooled + self.refine(pooled)
        return refined

    def _levels(self, beats: Tensor, action_ids: Tensor, sounds: Tensor, place: Tensor) -> Tensor:
        """Mean, spread and course over the output of learned levels of the passages' beats
        (W, T, 121), each changed by the action (a gain, a fade) and counted twice where the beat is
        looped. Shape: (B, 3 LEVELS).
        """
        level = shared_by(self.level(beats), self.level_action(action_ids))
        plays = sounds * (1 + (action_ids == Action.LOOP)).to(level.dtype)
        share = (plays / plays.sum(1, keepdim=True).clamp(min=1))[:, None]
        mean = share @ level
        apart = level - mean
        spread = (share @ apart.square() + MIN_SPREAD).sqrt()
        course = (share * 2 * place[:, None]) @ apart
        return torch.cat([mean, spread, course], dim=1).flatten(1)

    def _joins(self, beats: Tensor, action_ids: Tensor, mask: Tensor, whole: bool) -> Tensor:
        """How unlike a beat is to the one that the listener expects after what sounded last.

        For each beat: squared differences of learned projections, on the beat and on the
        JOIN_BEATS from it, to the beats that follow the last one not cut; and whether there is a
        gap at all; these are zero where the song plays straight on. Last, the same differences
        to the beat before it in the song. Shape: beats of the passages (W, T, 121), each with
        B / W edits; whole: no beat is padding -> (B, T, 3 CONTRAST + 1).
        """
        n_beats, edits = beats.shape[1], len(mask) // len(beats)
        place = torch.arange(n_beats, device=beats.device)
        sounds = mask & (action_ids != Action.CUT)
        latest = torch.where(sounds, place, -1).cummax(1).values
        expected = F.pad(latest[:, :-1], (1, 0), value=-1) + 1
        gap = sounds & (expected > 0) & (expected != place)
        valid = mask[::edits, :, None]
        near = self.contrast(beats)
        near = near if whole else near.masked_fill(~valid, 0.0)
        far = F.pad(near, (0, 0, 0, JOIN_BEATS - 1)).unfold(1, JOIN_BEATS, 1).mean(-1)
        views = repeated(torch.cat([near, far], dim=-1), edits)
        heard = views.gather(1, expected[..., None].expand(-1, -1, views.shape[-1]))
        apart = (views - heard).square() * gap[..., None]
        moved = F.pad((near[:, 1:] - near[:, :-1]).square(), (0, 0, 1, 0))
        moved = repeated(moved if whole else moved.masked_fill(~valid, 0.0), edits)
        return torch.cat([apart, gap[..., None].to(apart.dtype), moved], dim=-1)

    def forward(self, features: Tensor, action_ids: Tensor, mask: Tensor) -> Tensor:
        score: Tensor = self.head(self.embed(features, action_ids, mask)).squeeze(-1)
        return score


def check_inputs(features: Tensor, action_ids: Tensor, mask: Tensor) -> None:
    """Raise DataError when shapes, ids or masks make no sense, quoting what came."""
    shape = tuple(features.shape)
    if len(shape) != 3 or shape[-1] != INPUT_FEATURES:
        raise DataError(f"reward inputs are (edits, beats, {INPUT_FEATURES}), got {shape}")
    if tuple(action_ids.shape) != shape[:2] or tuple(mask.shape) != shape[:2]:
        raise DataError(
            f"features {shape} need action ids and mask of shape {shape[:2]}, got "
            f"{tuple(action_ids.shape)} and {tuple(mask.shape)}"
        )
    if action_ids.dtype != torch.int64 or mask.dtype != torch.bool:
        raise DataError(
            f"action ids are int64 and the mask is bool, got {action_ids.dtype} and {mask.dtype}"
        )
    if not bool(mask.any(1).all()):
        raise DataError("an edit has no valid beat at all: check the mask (True means valid)")
    if bool((action_ids < 0).any()) or bool((action_ids >= N_ACTIONS).any()):
        raise DataError(f"action ids must lie in 0..{N_ACTIONS - 1}")
