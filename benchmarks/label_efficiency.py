"""How many votes a taste costs: accuracy on songs never heard, against the number of votes.

    python -m rlhf_core.audio.demo_songs LAB/train --count 40 --seed 100
    python benchmarks/label_efficiency.py LAB [--judges NAME…] [--seeds 5] [--votes 50 200 …]

Half of the songs of LAB/train are voted on, the other half judge the result; the bootstrap's own
songs should be none of them (the shipped one is made of seeds 0 to 39). All votes are simulated:
70 % agree with the judge's order; 3 % are skipped, 2 % given without listening, ties occur, and
the left side is favoured by 0.3 logits.

    frozen       the bootstrap's trunk and a Bayesian head, pairs chosen at random
    chosen       the same with pairs chosen by what they make surer (`selection`), in batches
    tuned        the trunk's last layers fine-tuned, with and without its gate
    attributes   the head on hand-made attributes of the edit instead of the trunk's embedding
    scratch      the same network, trained on nothing but the votes
    real         frozen, on the songs of REAL/train (--real): votes on all but one, judged on that
                 one, each in turn
    joined       the same, but half of the votes are on the songs of LAB

real and joined can be had with other bootstraps (--trunks NAME CHECKPOINT…: one, or one for each
real song left out, in the order of their names), whose figures get tables of their own.

clean accuracy: share of the unseen songs' pairs put in the judge's order. ECE: of the stated
probabilities against the judge's true ones. Every figure is kept in --cache as soon as it is known,
so that a run may be stopped (--minutes) and gone on with; the table and the plot are made of all of
them (--docs).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judged_pool import GROUP, Array, Pool, answers, load_pool, of_songs, songs_of, vote
from label_tables import by_judge, of_real_songs, plot, share_of_votes, table, tuning, write_csv
from torch.nn import functional as F
from tqdm import tqdm

from rlhf_core.audio_judges import AUDIO_JUDGES
from rlhf_core.devices import native_bf16
from rlhf_core.editing.attributes import ATTRIBUTE_NAMES
from rlhf_core.files import sha256_of
from rlhf_core.judges import JUDGES
from rlhf_core.reward.checkpoint import RewardCheckpoint, load_reward, spread_within
from rlhf_core.reward.finetuning import REACH, Pooled, gate, tune
from rlhf_core.reward.learned_reward_integration import find_default_checkpoint
from rlhf_core.reward.metrics import folds_by_song
from rlhf_core.reward.model import LearnedRewardModel
from rlhf_core.reward.posterior import HeadPosterior, HeadPrior, Votes, fit_head
from rlhf_core.reward.selection import choose_batch
from rlhf_core.reward.trunk import batches, embed_edits, pool_edits

CURVES = ("frozen", "chosen", "tuned", "attributes", "scratch")
METHODS = (*CURVES, "real", "joined")  # those after the curves have own tables
SIZES = (50, 100, 200, 500, 1000, 2000)  # votes, for methods that are not below
FEWER = {"tuned": (50, 200, 500, 2000), "scratch": (50, 200, 500, 2000)}  # these take long
SIZES_OF: dict[str, tuple[int, ...]] = {
    **FEWER,
    "chosen": (25, 50, 75, 100, 150, 200, 500, 1000, 2000),
    "real": SIZES[:3],
    "joined": SIZES[:3],
}
NAMES = [*JUDGES, *AUDIO_JUDGES]
BATCH, LATER_BATCH, SOON = 25, 100, 200  # pairs asked for at a time up to SOON votes, and after
CANDIDATES = 150  # windows looked at for each batch of chosen pairs
REAL_WINDOWS = 60  # a song
MOST, REAL_MOST = 2000, 500  # votes drawn: fewer are the first of these, whatever is asked for
SCRATCH_EPOCHS = {200: 8, 500: 2, MOST: 1}  # up to so many votes: more did no better
SCRATCH_BATCH, SCRATCH_RATE = 8, 1e-3
A_AGAINST_B = torch.tensor([1.0, -1.0])


@dataclass(frozen=True)
class Bootstrap:
    """A bootstrap and what its figures and embeddings are filed under."""

    key: str
    checkpoint: RewardCheckpoint

    @classmethod
    def read(cls, path: Path) -> Bootstrap:
        return cls(sha256_of(path)[:12], load_reward(path))

    def embed(self, pool: Pool, cache: Path) -> Array:
        """phi (P, G, D) of the pool's edits; kept in cache."""
        path = cache / f"phi-{self.key}-{len(pool.edits)}-{pool.songs[0].song_id}.npy"
        if not path.is_file():
            np.save(path, embed_edits(self.checkpoint.model, pool.edits).double().numpy())
        return np.asarray(np.load(path))


class Bench:
    """The two pools, embedded once, and the figures known so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        half = args.songs // 2
        own = Bootstrap.read(args.reward_model or find_default_checkpoint(Path())[0])
        self.checkpoint, self.key, self.cache = own.checkpoint, own.key, args.cache
        self.trunks = [Bootstrap.read(Path(path)) for path in args.trunks[1:]] or [own]
        self.called = {"trunks": args.trunks[0]} if args.trunks else {}
        self.votes = load_pool(songs_of(args.lab, 0, half), args.windows, 1, args.cache, NAMES)
        self.test = load_pool(
            songs_of(args.lab, half, args.songs), args.test_windows, 2, args.cache, NAMES
        )
        self.phi = {"trunk": [own.embed(pool, args.cache) for pool in (self.votes, self.test)]}
        self._hand_made()
        self.real = self._real_songs(args) if args.real else None
        self.pools: list[torch.Tensor] = []
        self.file = args.cache / "results.jsonl"
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        self.known = {self._id(row): row for row in map(json.loads, lines)}

    def _hand_made(self) -> None:
        """The baseline: `edit_attributes` as they are, standardised, with the same sparse prior."""
        n = len(ATTRIBUTE_NAMES)
        flat = self.votes.edits.attributes[..., :n].flatten(0, 1).numpy()
        window = np.arange(len(self.votes.edits)).repeat(GROUP)
        unit = np.array([max(spread_within(column, window)[1], 1e-3) for column in flat.T])
        self.phi["attributes"] = [
            np.clip((pool.edits.attributes[..., :n].numpy() - flat.mean(0)) / unit, -8, 8)
            for pool in (self.votes, self.test)
        ]
        plain = HeadPrior.build(np.eye(n), 2 * np.eye(n), np.eye(n))
        self.prior = {"trunk": self.checkpoint.prior, "attributes": plain}

    @staticmethod
    def _id(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[k] for k in ("key", "method", "judge", "seed", "votes"))

    def _real_songs(self, args: argparse.Namespace) -> Pool:
        songs = songs_of(args.real, 0, None)
        if len(self.trunks) not in (1, len(songs)):
            raise SystemExit(f"--trunks: one checkpoint or one for each of {len(songs)} songs")
        cache = args.real / "label_efficiency"
        return load_pool(songs, REAL_WINDOWS * len(songs), 3, cache, NAMES)

    def figures(
        self, name: str, logit: Array, p: Array, test: Pool | None = None
    ) -> dict[str, float]:
        """Clean accuracy and ECE on the unseen songs, (P, 4) disjoint pairs a window."""
        test = test or self.test
        score = test.scores[name]
        gap = (score[:, ::2] - score[:, 1::2]).ravel()
        order = gap != 0
        right = np.where(logit == 0, 0.5, (logit > 0) == (gap > 0))[order]
        truth = 1 / (1 + np.exp(-gap / test.noise(name)))
        place = np.minimum((p * 10).astype(int), 9)
        off = sum(abs((p - truth)[place == k].sum()) for k in range(10))
        return {"accuracy": float(right.mean()), "ece": float(off / len(p))}

    def of_head(self, name: str, head: HeadPosterior, space: str) -> dict[str, float]:
        phi = self.phi[space][1]
        apart = (phi[:, ::2] - phi[:, 1::2]).reshape(-1, phi.shape[-1])
        return self.figures(name, apart @ head.mean, head.probability(apart))

    def run(self, method: str, name: str, seed: int, sizes: list[int]) -> None:
        keys = [trunk.key for trunk in self.trunks]
        other = method in ("real", "joined") and len(keys) > 1
        key = hashlib.sha256(repr(keys).encode()).hexdigest()[:12] if other else keys[0]
        row = {"key": key, "method": method, "judge": name, "seed": seed, **self.called}
        todo = [n for n in sizes if self._id({**row, "votes": n}) not in self.known]
        if not todo:
            return
        for n, values in getattr(self, f"_{method}")(name, seed, todo):
            done = {**row, "votes": n, **values}
            self.known[self._id(done)] = done
            with self.file.open("a") as out:
                out.write(json.dumps(done) + "\n")

    def _cast(self, name: str, seed: int, phi: Array) -> tuple[Votes, Array]:
        """The votes on random pairs, the same for every method, and their pairs (n, 3)."""
        rng = np.random.default_rng([seed, 5])
        pairs = self.votes.pairs(MOST, rng)
        votes, kept = answers(self.votes, phi, name, pairs, rng)
        return votes, pairs[kept]

    def _frozen(self, name: str, seed: int, sizes: list[int], space: str = "trunk") -> Any:
        votes, _ = self._cast(name, seed, self.phi[space][0])
        for n in sizes:
            started = time.perf_counter()
            head = fit_head(first(votes, n), self.prior[space])
            spent = time.perf_counter() - started
            yield n, {**self.of_head(name, head, space), "seconds": spent}

    def _attributes(self, name: str, seed: int, sizes: list[int]) -> Any:
        return self._frozen(name, seed, sizes, "attributes")

    def _joined(self, name: str, seed: int, sizes: list[int]) -> Any:
        return self._real(name, seed, sizes, joined=True)

    def _real(self, name: str, seed: int, sizes: list[int], joined: bool = False) -> Any:
        """joined: half of the votes are the first on the songs of LAB."""
        if self.real is None:
            raise SystemExit("method real needs --real FOLDER (with songs in FOLDER/train)")
        pool = self.real
        found: dict[int, list[dict[str, float]]] = {n: [] for n in sizes}
        for left_out in range(len(pool.songs)):
            trunk = self.trunks[left_out % len(self.trunks)]
            phi, prior = trunk.embed(pool, self.cache), trunk.checkpoint.prior
            here = pool.edits.song == left_out
            rest, test = of_songs(pool, ~here), of_songs(pool, here)
            rng = np.random.default_rng([seed, 8, left_out])
            votes = vote(rest, phi[~here], name, rest.pairs(REAL_MOST, rng), rng)
            apart = (phi[here][:, ::2] - phi[here][:, 1::2]).reshape(-1, phi.shape[-1])
            if joined:
                elsewhere, _ = self._cast(name, seed, trunk.embed(self.votes, self.cache))
            for n in sizes:
                cast = first(votes, n)
                if joined:
                    cast = first(votes, n // 2).joined(first(elsewhere, n - n // 2))
                head = fit_head(cast, prior)
                found[n].append(
                    self.figures(name, apart @ head.mean, head.probability(apart), test)
                )
        for n, songs in found.items():
            mean = {key: float(np.mean([song[key] for song in songs])) for key in songs[0]}
            yield n, {**mean, "songs": [song["accuracy"] for song in songs]}

    def _tuned(self, name: str, seed: int, sizes: list[int]) -> Any:
        model, prior = self.checkpoint.model, self.prior["trunk"]
        if not self.pools:
            self.pools = [pool_edits(model, pool.edits) for pool in (self.votes, self.test)]
        votes, pairs = self._cast(name, seed, self.phi["trunk"][0])
        window, a, b = pairs.T
        pooled = Pooled(self.pools[0][window, a], self.pools[0][window, b])
        songs = self.votes.edits.song[window].astype(str).tolist()
        for n in sizes:
            some = np.arange(min(n, len(votes)))
            mine, before, names = votes.select(some), pooled.select(some), songs[: len(some)]
            head = fit_head(mine, prior)
            verdict = gate(
                model, before, mine, prior, folds_by_song(names, 0), mine.outcome != 0, names
            )
            moved = tune(model, before, mine, head, REACH)
            with torch.no_grad():
                phi = moved.mix(self.pools[1].flatten(0, 1)).double().numpy()
            phi = phi.reshape(*self.pools[1].shape[:2], -1)
            apart = (phi[:, ::2] - phi[:, 1::2]).reshape(-1, phi.shape[-1])
            plain = self.of_head(name, head, "trunk")
            found = self.figures(name, apart @ head.mean, head.probability(apart))
            gated = found if verdict.accepted else plain
            yield n, {**found, "frozen": plain["accuracy"], "gated": gated["accuracy"],
                      "accepted": verdict.accepted, "gain": verdict.gain}  # fmt: skip

    def _chosen(self, name: str, seed: int, sizes: list[int]) -> Any:
        rng, voter = np.random.default_rng([seed, 6]), np.random.default_rng([seed, 7])
        phi, given = self.phi["trunk"][0], None
        usual = self.checkpoint.reference.pair_covariance()
        mean, covariance = self.checkpoint.belief()
        a, b = np.triu_indices(GROUP, 1)
        asked = 0
        while asked < max(sizes):
            count = BATCH if asked < SOON else LATER_BATCH
            asked += count
            windows = rng.choice(len(phi), min(CANDIDATES, len(phi)), replace=False)
            apart = (phi[windows][:, a] - phi[windows][:, b]).reshape(-1, phi.shape[-1])
            group = windows.repeat(len(a))
            best = choose_batch(apart, group, mean, covariance, usual, count)
            which = best % len(a)
            pairs = np.column_stack([group[best], a[which], b[which]])
            new = vote(self.votes, phi, name, pairs, voter)
            given = new if given is None else given.joined(new)
            head = fit_head(given, self.prior["trunk"])
            mean, covariance = head.mean, head.covariance
            if asked in sizes:
                yield asked, self.of_head(name, head, "trunk")

    def _scratch(self, name: str, seed: int, sizes: list[int]) -> Any:
        votes, pairs = self._cast(name, seed, self.phi["trunk"][0])
        for n in sizes:
            yield n, self.figures(name, *self._train(pairs[:n], votes.outcome[:n], seed))

    def _train(self, pairs: Array, outcome: Array, seed: int) -> tuple[Array, Array]:
        """A network from random weights: logits and p on the unseen songs' pairs."""
        torch.manual_seed(seed)
        model = LearnedRewardModel(self.checkpoint.model.config)
        edits, test, bf16 = self.votes.edits, self.test.edits, native_bf16()
        model.normaliser.fit(edits.windows.features, edits.windows.valid)
        optimiser = torch.optim.AdamW(
            model.parameters(), SCRATCH_RATE, weight_decay=0.05, fused=True
        )
        generator = torch.Generator().manual_seed(seed)
        rows, want = torch.as_tensor(pairs), torch.as_tensor((outcome + 1) / 2)
        lengths = edits.windows.lengths[rows[:, 0]]
        epochs = next(count for most, count in SCRATCH_EPOCHS.items() if len(pairs) <= most)
        for _ in range(epochs):
            for part in batches(lengths, SCRATCH_BATCH, generator):
                inputs = edits.inputs(rows[part, 0])
                both = (torch.arange(len(part))[:, None] * GROUP + rows[part, 1:]).flatten()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    phi = model.embed(*(x[both] for x in inputs), edits=2)
                logit = (phi.float() @ model.head.weight[0]).view(-1, 2) @ A_AGAINST_B
                loss = F.binary_cross_entropy_with_logits(logit, want[part].float())
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            phi = embed_edits(model.eval(), test).float()
        score = (phi @ model.head.weight[0]).detach().double().numpy()
        logit = (score[:, ::2] - score[:, 1::2]).ravel()
        return logit, 1 / (1 + np.exp(-logit))


def first(votes: Votes, count: int) -> Votes:
    """The first of the votes, or all."""
    return votes.select(np.arange(min(count, len(votes))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lab", type=Path, help="folder with train/*.flac")
    parser.add_argument("--songs", type=int, default=40)
    parser.add_argument("--windows", type=int, default=500, help="on the songs voted on")
    parser.add_argument("--test_windows", type=int, default=150)
    parser.add_argument("--judges", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--methods", nargs="+", default=["frozen"], choices=METHODS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--votes", type=int, nargs="+", help="default: by method")
    parser.add_argument("--reward_model", type=Path, help="bootstrap (default: the shipped one)")
    parser.add_argument("--cache", type=Path, help="default: LAB/label_efficiency")
    parser.add_argument(
        "--real", type=Path, help="folder with train/ for the methods real and joined"
    )
    parser.add_argument(
        "--trunks", nargs="+", default=[], metavar="", help="NAME CHECKPOINT… for real and joined"
    )
    parser.add_argument("--minutes", type=float, help="begin nothing new after so long")
    parser.add_argument("--docs", type=Path, help="also write label-efficiency.csv and .png here")
    args = parser.parse_args()
    args.cache = args.cache or args.lab / "label_efficiency"
    torch.set_num_threads(1)
    bench = Bench(args)
    todo = [(m, j, s) for s in range(args.seeds) for m in args.methods for j in args.judges]
    started = time.monotonic()
    for method, name, seed in tqdm(todo, desc="judges and seeds", disable=None):
        if args.minutes and time.monotonic() - started > 60 * args.minutes:
            break
        bench.run(method, name, seed, sorted(args.votes or SIZES_OF.get(method, SIZES)))
    rows = [row for row in bench.known.values() if row["key"] == bench.key]
    others = [row for row in bench.known.values() if "trunks" in row]
    texts = [table(rows, CURVES), by_judge(rows), share_of_votes(rows)]
    print(*texts, tuning(rows), sep="\n\n")
    for name in [None, *dict.fromkeys(row["trunks"] for row in others)]:
        some = [row for row in [*rows, *others] if row.get("trunks") == name]
        for method in ("real", "joined"):
            print(f"\n{method}, {name or 'this bootstrap'}:", of_real_songs(some, method), sep="\n")
    if args.docs:
        plot(rows, CURVES, args.docs / "label-efficiency.png")
        write_csv([*rows, *others], args.docs / "label-efficiency.csv")


if __name__ == "__main__":
    main()
