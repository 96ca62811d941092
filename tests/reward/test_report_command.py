"""test_report: every kind of damage is found and named; figures are shown whole, and drawn."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from rlhf_core import test_report
from rlhf_core.checkpoints import load_checkpoint, save_checkpoint
from rlhf_core.errors import CheckpointError
from rlhf_core.reward.checkpoint import KIND, RewardCheckpoint, load_reward
from rlhf_core.reward.dataset import read_snapshot
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.report_text import metrics_text, reliability_text, values_text
from rlhf_core.reward.training import fit_reward
from rlhf_core.types import AudioState
from tests.reward.judged import judged_rows, snapshot

Content = dict[str, Any]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def flipped_byte(path: Path) -> None:
    """One bit of a weight: the file has its length, the number may even be a likely one."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda item: item.file_size)
    data = bytearray(path.read_bytes())
    data[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(data)


def no_checkpoint(path: Path) -> None:
    path.write_text("not a torch file", encoding="utf-8")


def changed(change: Callable[[Content], object]) -> Callable[[Path], None]:
    """Damage to the content, written back with right checksums."""

    def damage(path: Path) -> None:
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    return damage


def nan_weight(content: Content) -> None:
    content["model"]["token.weight"][3, 4] = float("nan")


def wrong_shape(content: Content) -> None:
    content["model"]["token.weight"] = torch.zeros(3, 4)


def wrong_posterior(content: Content) -> None:
    content["posterior"]["mean"] = content["posterior"]["mean"][:-1]


def scale(name: str, value: float) -> Callable[[Content], object]:
    """One of the frozen scales of the rewards, changed."""
    return lambda content: content["reference"].update({name: value})


def odd_list(content: Content) -> None:
    content["metrics"]["reliability"] = [{"votes": 3, "stated": float("inf")}]


DAMAGES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "truncated": (truncated, 2, "damaged"),
    "flipped byte": (flipped_byte, 2, "checksum"),
    "no checkpoint": (no_checkpoint, 2, "damaged or is not one"),
    "missing file": (Path.unlink, 2, "no such checkpoint"),
    "wrong features": (changed(lambda c: c.update(feature_version="old")), 2, "'old'"),
    "wrong actions": (changed(lambda c: c["actions"].pop()), 2, "other actions"),
    "missing weight": (changed(lambda c: c["model"].pop("token.bias")), 1, "token.bias"),
    "missing key": (changed(lambda c: c.pop("posterior")), 1, "posterior"),
    "no configuration": (changed(lambda c: c.pop("config")), 1, "config"),
    "nan weight": (changed(nan_weight), 1, "FAIL all finite: token.weight"),
    "wrong shape": (changed(wrong_shape), 1, "token.weight"),
    "wrong posterior": (changed(wrong_posterior), 1, "posterior of shapes"),
    "no spread": (changed(scale("sigma", 0.0)), 1, "must be positive"),
    "rewards all 0": (changed(scale("sigma", float("inf"))), 1, "must be finite numbers"),
    "rewards all nan": (changed(scale("mu", float("nan"))), 1, "must be finite numbers"),
    "dense all nan": (changed(scale("dense_mu", float("nan"))), 1, "must be finite numbers"),
    "other scale": (changed(scale("sigma", 9.0)), 1, "FAIL mu and sigma are those of the"),
    "nan prior": (changed(lambda c: c["prior"]["family"].fill_(torch.nan)), 1, "not finite"),
    "short prior": (changed(lambda c: c["prior"]["isotropic"].resize_(2, 2)), 1, "its prior is"),
    "short reference": (
        changed(lambda c: c["reference"].update(embeddings=torch.zeros(3, 2))),
        1,
        "not (192, 96)",
    ),
    "other head": (changed(lambda c: c["model"]["head.weight"].add_(1)), 1, "FAIL the head is"),
    "no covariance": (
        changed(lambda c: c["posterior"]["covariance"].neg_()),
        1,
        "FAIL the covariance is one",
    ),
    "dead weights": (
        changed(lambda c: c["model"]["blocks.1.qkv.weight"].zero_()),
        1,
        "zero: blocks.1.qkv.weight",
    ),
    "no weights": (changed(lambda c: c["model"].clear()), 1, "FAIL there are weights"),
    "odd list": (changed(odd_list), 1, "FAIL figures are finite: reliability.0.stated"),
    "odd figure": (changed(lambda c: c["metrics"].update(ece=float("nan"))), 1, "ece"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_kind_of_damage_fails_and_is_named(
    name: str, bootstrap_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, status, word = DAMAGES[name]
    path = tmp_path / "model.pt"
    path.write_bytes(bootstrap_path.read_bytes())
    damage(path)
    assert test_report.main([str(path)]) == status
    said = capsys.readouterr()
    assert word in said.out + said.err
    assert ("FAIL" in said.out) == (status == 1)


def loud(model: LearnedRewardModel, features: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The historic mistake: what lies behind a passage's end counts."""
    return features[..., 0].sum(1) + ids.float().mean(1)


def deaf(model: LearnedRewardModel, features: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Knows what was done, and nothing of the song."""
    return (ids * mask).sum(1).float()


@pytest.mark.parametrize(
    ("forward", "failing"),
    [(loud, "padding changes nothing"), (deaf, "what sounds changes the score")],
)
def test_a_network_with_a_historic_mistake_fails(
    forward: Callable[..., Tensor],
    failing: str,
    checkpoint: RewardCheckpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert all(holds for _, holds, _ in test_report.reward_checks(checkpoint))
    monkeypatch.setattr(LearnedRewardModel, "forward", forward)
    found = {what: holds for what, holds, _ in test_report.reward_checks(checkpoint)}
    assert not found[failing] and found["every action changes the score"]


def test_no_flipped_bit_is_read_as_something_else(tmp_path: Path) -> None:
    """Any byte of a small checkpoint: it is refused, or what is read is what was written."""
    path = tmp_path / "small.pt"
    save_checkpoint(path, KIND, {"weights": torch.arange(12.0), "name": "small"})
    whole, good = path.read_bytes(), load_checkpoint(path, KIND)
    refused = 0
    for place in range(0, len(whole), 3):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            found = load_checkpoint(path, KIND)
        except CheckpointError:
            refused += 1
            continue
        assert torch.equal(found.pop("weights"), good["weights"])
        assert found == {name: value for name, value in good.items() if name != "weights"}
    assert refused > len(whole) / 6


def test_a_report_is_shown_whole_and_drawn(
    songs: list[AudioState],
    bootstrap_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:

    rows = judged_rows(songs[:6], "tight", 48, 0.5, 7)
    for row in rows[1::4]:
        row["annotator"] = "simulated_second"
    rows += [row | {"vote_id": f"again{i}", "pool": "repeat"} for i, row in enumerate(rows[:6])]
    votes = read_snapshot(snapshot(tmp_path / "v.parquet", rows)).usable(include_simulated=True)
    states = {song.song_id: song for song in songs}
    fitted = fit_reward(votes, states, load_reward(bootstrap_path), {})
    path, plot = tmp_path / "model.pt", tmp_path / "plot.png"
    fitted.checkpoint.save(path)
    assert test_report.main([str(path), "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    for word in (
        *("accuracy  95 % interval", "this version", "length only", "keep ratio only"),
        *("actions shuffled", "audio zeroed", "attributes only", "knowing nothing"),
        *(
            "simulated_second",
            "repeat their own answer 100.0%",
            "no pair was asked of two",
            "said  came  votes",
            "prior_scale",
        ),
    ):
        assert word in said, word
    assert "…" not in said and max(map(len, said.splitlines())) < 140
    assert imread(plot).std() > 0.02  # not an empty picture
    assert test_report.main([str(bootstrap_path), "--plot", str(tmp_path / "none.png")]) == 2
    assert "no reliability figures" in capsys.readouterr().err


def test_the_parent_is_told_with_what_it_had() -> None:
    row = {
        "accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "log_loss": 0.61, "ece": 0.04
    }  # fmt: skip
    parent = row | {
        "version": "reward_v1", "votes_known": True, "n_votes": 37, "own_trunk": True,
        "trunk_saw_votes": True,
    }  # fmt: skip
    metrics = row | {
        "n_votes": 90, "n_decisive": 80, "n_simulated": 90, "n_annotators": 1, "n_songs": 7,
        "evaluated_on": "60 votes", "log_loss_of_knowing_nothing": 0.6931,
        "baselines": {"parent": parent | {"accuracy": 0.65}},
        "gain_over_parent": {"accuracy": 0.05, "low": -0.01, "high": 0.11},
    }  # fmt: skip
    said = "\n".join(metrics_text(metrics))
    assert "(its 37 votes, its own trunk, which was tuned on votes judged here)" in said
    assert "right on 5.0% more of the votes than its parent" in said
    assert "(interval -1.0% to +11.0%)" in said and "90 simulated) of 1 person" in said
    del metrics["baselines"]["parent"]["trunk_saw_votes"]
    assert "tuned" not in "\n".join(metrics_text(metrics))


def test_the_diagram_puts_marks_where_they_belong() -> None:
    bins = [
        {"votes": 100, "stated": 0.25, "observed": 0.75},
        {"votes": 4, "stated": 1.0, "observed": 1.0},
    ]
    far, near = (line[line.index("[") + 1 : -1] for line in reliability_text(bins)[1:3])
    assert (far.index("|"), far.index("o"), len(far)) == (10, 30, 41)
    assert near.index("+") == 40 and near.count("-") == 20  # 4 of 4: 51 % to 100 % (Wilson)


def test_long_values_are_wrapped_and_nothing_is_lost() -> None:
    values = {"many": {f"name_{i}": i / 7 for i in range(60)}, "deep": {"er": {"text": "x" * 300}}}
    lines = values_text(values)
    text = "\n".join(lines)
    assert all(f"name_{i} {i / 7:.4g}" in text for i in range(60)) and "x" * 300 in text
    assert max(len(line) for line in lines if "name" in line) <= 100
