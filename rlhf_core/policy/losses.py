"""The mathematics of policy learning as pure functions.

Conventions: B episodes padded to T beats; `free` (B, T) is True where a beat was a decision,
`valid` (B, T) where there is a beat at all; illegal actions have the log-probability `NEVER`, a
finite number so small that its probability is exactly 0 (with -inf, 0 * inf would turn gradients
into NaN).

Sources: GAE Schulman 2015 (arXiv:1506.02438); PPO Schulman 2017 (1707.06347); DPO Rafailov 2023
(2305.18290) with the label smoothing of Mitchell's cDPO; its offset Amini 2024 (2402.10571); IPO
Azar 2023 (2310.12036).
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

NEVER = -1e9


def masked_log_probs(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities over the legal actions.

    Args: logits (..., A); mask (..., A) True = legal. A row without any legal action (past the
        end of a passage) counts as one where only action 0 (KEEP) is legal.
    Returns: (..., A); illegal actions near `NEVER`, so that exp() of them is exactly 0.
    """
    nothing = ~mask.any(-1)
    legal = mask.clone()
    legal[..., 0] |= nothing
    return functional.log_softmax(logits.masked_fill(~legal, NEVER), dim=-1)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats of categoricals given by log-probabilities (..., A) -> (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def kl_categorical(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats of categoricals over the same legal actions, (..., A) -> (...)."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def masked_mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of `values` where `where` is True; 0 where nothing is."""
    weight = where.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def gae(
    rewards: Tensor, values: Tensor, valid: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates of whole episodes.

    An episode ends at its last valid step: nothing is worth anything after it, and padding leaks
    nothing back.

    Args: rewards, values (B, T) float; valid (B, T) bool, True on a prefix of each row.
    Returns: advantages and returns (advantage + value), (B, T), 0 on padding.
    """
    live = valid.to(values.dtype)
    rewards, values = rewards * live, values * live
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(running)
    for step in reversed(range(values.shape[1])):
        delta = rewards[:, step] + gamma * following - values[:, step]
        running = (delta + gamma * lam * running) * live[:, step]
        advantages[:, step] = running
        following = values[:, step]
    return advantages, advantages + values


def normalise(values: Tensor, where: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the places where `where` is True; 0 elsewhere."""
    mean = masked_mean(values, where)
    deviation = masked_mean((values - mean) ** 2, where).sqrt()
    return torch.where(where, (values - mean) / (deviation + 1e-8), torch.zeros_like(values))


def less_group_mean(values: Tensor, group: Tensor) -> Tensor:
    """Values (B,) less the mean of their group, (B,) long; those alone in theirs stay as they are.

    The mean of what a policy earns with one passage is the natural baseline of its edits of that
    passage (RLOO, Ahmadian 2024, arXiv:2402.14740; GRPO, Shao 2024, 2402.03300).
    """
    count = torch.zeros(int(group.max()) + 1, dtype=values.dtype, device=values.device)
    total = count.index_add(0, group, values)
    count = count.index_add(0, group, torch.ones_like(values))
    alone = count == 1
    mean = torch.where(alone, torch.zeros_like(total), total / count.clamp(min=1))
    return values - mean[group]


def clipped_objective(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, where: Tensor, clip: float
) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's clipped surrogate as a loss, with what is worth logging.

    Returns: loss; approx_kl, the estimate (r - 1) - ln r of KL(old || new); the share clipped.
    """
    log_ratio = torch.where(where, log_probs - old_log_probs, torch.zeros_like(log_probs))
    ratio = log_ratio.exp()
    pessimistic = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    with torch.no_grad():
        approx_kl = masked_mean((ratio - 1) - log_ratio, where)
        clipped = masked_mean(((ratio - 1).abs() > clip).to(ratio.dtype), where)
    return -masked_mean(pessimistic, where), approx_kl, clipped


def value_loss(values: Tensor, returns: Tensor, where: Tensor) -> Tensor:
    """Half the mean squared error."""
    return 0.5 * masked_mean((values - returns) ** 2, where)


def explained_variance(values: Tensor, returns: Tensor, where: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns); NaN where the returns do not vary."""
    target, error = returns[where], (returns - values)[where]
    variance = float(target.var(unbiased=False)) if target.numel() else 0.0
    return 1 - float(error.var(unbiased=False)) / variance if variance > 1e-12 else float("nan")


def preference_loss(
    margin: Tensor,
    label: Tensor,
    *,
    beta: float,
    kind: str = "sigmoid",
    label_smoothing: float = 0.0,
    lead: Tensor | None = None,
) -> Tensor:
    """Loss of each pair, given how much more the policy has come to like its first edit.

    margin: (N,) [ln pi(a) - ln ref(a)] - [ln pi(b) - ln ref(b)], summed over free decisions.
    label: (N,) probability that a is the better one: 1, 0, or .5 for a tie.
    kind: "sigmoid" (DPO) or "ipo", whose target margin is 1 / (2 beta).
    label_smoothing: chance that a vote is flipped, 0 <= it < .5.
    lead: (N,) by how much the better edit's implicit reward, beta * ln-ratio, has to lead at least
        (DPO with an offset, Amini 2024, arXiv:2402.10571; IPO: its target moves up by that much).
        A tie asks for none.
    """
    target = label * (1 - label_smoothing) + (1 - label) * label_smoothing
    ahead = torch.zeros_like(margin) if lead is None else lead * (2 * label - 1).abs()
    if kind == "sigmoid":
        first = functional.logsigmoid(beta * margin - ahead)
        second = functional.logsigmoid(-beta * margin - ahead)
        return -(target * first + (1 - target) * second)
    if kind == "ipo":
        aim = (0.5 + ahead) / beta
        return target * (margin - aim) ** 2 + (1 - target) * (margin + aim) ** 2
    raise ValueError(f"preference loss {kind!r} is not one of sigmoid, ipo")
