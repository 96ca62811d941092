"""Writes trl_reference.json: what trl's own DPO loss code says of random pairs.

trl needs other versions of shared libraries than this project, so it lives in an environment of its
own, and the tests read the stored figures (`test_trl_reference.py`; its long test makes them anew
where TRL_PYTHON names such an environment's interpreter):

    python3 -m venv /tmp/trl && /tmp/trl/bin/pip install trl==1.16.0 torch numpy
    /tmp/trl/bin/python tests/policy/make_trl_reference.py tests/policy/trl_reference.json

`DPOTrainer._compute_loss` is called as it is; only the language model is replaced, by one that
answers with given log-probabilities of tokens. Keys: log-probabilities per decision (0 beyond an
edit's end) of policy and reference for the chosen and the rejected edit, and trl's figures.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

PAIRS, LENGTH = 6, 12


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """Log-probabilities (PAIRS, LENGTH) of both models for both sides, unequal lengths."""
    sides: dict[str, Any] = {}
    for side in ("chosen", "rejected"):
        lengths = rng.integers(4, LENGTH + 1, PAIRS)
        live = np.arange(LENGTH) < lengths[:, None]
        policy = -rng.exponential(1.0, (PAIRS, LENGTH)) * live
        reference = (policy + rng.normal(0, 0.5, (PAIRS, LENGTH))).clip(max=-0.01) * live
        sides[side] = {"lengths": lengths, "policy": policy, "reference": reference}
    return sides


def by_trl(sides: dict[str, Any], kind: str, beta: float) -> dict[str, float]:
    """trl's mean loss and what it logs."""
    from trl.trainer.dpo_trainer import DPOTrainer

    log_probs = torch.tensor(np.concatenate([sides[s]["policy"] for s in sides]))
    lengths = torch.tensor(np.concatenate([sides[s]["lengths"] for s in sides]))
    live = torch.arange(LENGTH) < lengths[:, None]
    mask = torch.cat([torch.zeros(2 * PAIRS, 1, dtype=torch.long), live.long()], dim=1)
    zeros = torch.zeros(2 * PAIRS, LENGTH, dtype=torch.double)
    answers = SimpleNamespace(
        log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
    )
    same = SimpleNamespace(
        device=torch.device("cpu"),
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=same,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _total_train_tokens=0,
        _metrics={"eval": defaultdict(list)},
    )
    inputs = {
        "input_ids": mask,
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        **{
            f"ref_{side}_logps": torch.tensor(sides[side]["reference"]).sum(1)
            for side in ("chosen", "rejected")
        },
    }
    loss = DPOTrainer._compute_loss(trainer, lambda **_: answers, inputs, False)
    logged = trainer._metrics["eval"]
    return {"loss": float(loss)} | {
        name: float(logged[name][0])
        for name in ("rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")
    }


def main(path: str) -> None:
    import trl

    rng = np.random.default_rng(0)
    cases = []
    for kind, beta in (("sigmoid", 0.1), ("sigmoid", 0.5), ("ipo", 0.1), ("ipo", 0.5)):
        sides = draw(rng)
        cases.append({"kind": kind, "beta": beta, "trl": by_trl(sides, kind, beta)} | sides)
    made = {"trl": trl.__version__, "torch": torch.__version__, "cases": cases}
    with Path(path).open("w", encoding="utf-8") as file:
        json.dump(made, file, default=lambda array: array.tolist(), indent=1)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
