"""Batches of like lengths, and matrix products in bfloat16 where a device has them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from rlhf_core import devices
from rlhf_core.reward.model import RewardModelConfig
from rlhf_core.reward.pretraining import family
from rlhf_core.reward.synthetic import make_edits
from rlhf_core.reward.trunk import PretrainingSettings, Standard, Trunk, batches, gradient
from rlhf_core.types import AudioState


def split(lengths: torch.Tensor, seed: int) -> list[list[int]]:
    return [part.tolist() for part in batches(lengths, 3, torch.Generator().manual_seed(seed))]


def test_batches_hold_all_windows_once_and_like_lengths_together() -> None:
    lengths = torch.tensor([80, 32, 64, 48, 32, 80, 48, 64, 32, 64])
    parts = split(lengths, 0)
    assert sorted(index for part in parts for index in part) == list(range(10))
    assert sorted(map(len, parts)) == [1, 3, 3, 3]
    spans = sorted((lengths[part].min().item(), lengths[part].max().item()) for part in parts)
    for (_, longest), (shortest, _) in pairwise(spans):
        assert longest <= shortest  # no batch reaches into the lengths of another
    assert split(lengths, 0) == parts
    others = [split(lengths, seed) for seed in range(1, 6)]
    assert any(lengths[other[0]].max() != lengths[parts[0]].max() for other in others)  # shuffled


def test_the_gradient_in_bfloat16_is_nearly_that_in_float32(songs: list[AudioState]) -> None:
    rng = np.random.default_rng(0)
    edits = make_edits(songs[:2], 3, rng)
    standard = Standard(edits.attributes, family(rng))
    config = RewardModelConfig(d_model=32, n_layers=1, n_heads=2, ff=32, embedding=32)
    torch.manual_seed(0)
    trunk = Trunk(config, edits.attributes.shape[-1], len(standard.family.weights))
    trunk.model.normaliser.fit(edits.windows.features, edits.windows.valid)
    want = standard.targets(edits.attributes)
    found = []
    for bf16 in (False, True):
        settings = PretrainingSettings(steps=1, time_limit=None, bf16=bf16)
        gradient(trunk, edits, want, settings, torch.arange(3))
        grads = [p.grad for p in trunk.parameters() if p.grad is not None]
        assert all(grad.dtype == torch.float32 for grad in grads)
        found.append(torch.cat([grad.flatten() for grad in grads]))
    plain, short = found
    assert not torch.equal(plain, short)  # it does make a difference
    assert float(torch.cosine_similarity(plain, short, dim=0)) > 0.98
    assert float(short.norm() / plain.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("able", "native"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_bfloat16_is_for_cpus_that_multiply_it(
    able: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert devices.native_bf16() is native
