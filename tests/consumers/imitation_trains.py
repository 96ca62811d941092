"""Run with imitation's own environment: FILE.npz in, one JSON object out.

Its PreferenceDataset takes the fragments and preferences of an export, and its reward trainer makes
one pass over them. The first function is what a researcher needs to read the file.
"""

import json
import sys

import gymnasium as gym
import numpy as np
import torch
from imitation.algorithms import preference_comparisons as pc
from imitation.data.types import TrajectoryWithRew
from imitation.rewards.reward_nets import BasicRewardNet


def read(path):
    data = np.load(path)
    ends, count = np.cumsum(data["lengths"]), np.arange(len(data["lengths"]))

    def fragments(k):
        acts = np.split(data[f"fragments{k}_acts"], ends[:-1])
        obs = np.split(data[f"fragments{k}_obs"], (ends + count + 1)[:-1])
        rews = np.split(data[f"fragments{k}_rews"], ends[:-1])
        terminal = data[f"fragments{k}_terminal"]
        return [
            TrajectoryWithRew(o, a, None, bool(t), r)
            for o, a, t, r in zip(obs, acts, terminal, rews, strict=True)
        ]

    return list(zip(fragments(1), fragments(2), strict=True)), data["preferences"]


def main(path):
    torch.manual_seed(0)
    fragments, preferences = read(path)
    dataset = pc.PreferenceDataset()
    dataset.push(fragments, preferences)
    width = fragments[0][0].obs.shape[1]
    space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)
    net = BasicRewardNet(space, gym.spaces.Discrete(10), hid_sizes=(16,))
    before = torch.nn.utils.parameters_to_vector(net.parameters()).detach().clone()
    model, loss = pc.PreferenceModel(net), pc.CrossEntropyRewardLoss()
    first = float(loss(fragments, preferences, model).loss.detach())
    trainer = pc.BasicRewardTrainer(model, loss, np.random.default_rng(0), lr=1e-3, epochs=1)
    trainer.train(dataset)
    after = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    moved = float((after - before).abs().max())
    last = float(loss(fragments, preferences, model).loss.detach())
    print(json.dumps({"pairs": len(dataset), "obs": width, "moved": moved, "loss": [first, last]}))


main(sys.argv[1])
