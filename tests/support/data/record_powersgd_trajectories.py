"""Records what the authors' two codes of PowerSGD do on small quadratics.

    python tests/support/data/record_powersgd_trajectories.py CHECKOUT

CHECKOUT is a checkout of epfml/powersgd, which is imported as it is; powersgd.md beside
this file says with which versions that was done, and what is patched. Nothing of the
project is imported: the environment needs PyTorch and NumPy only.
"""

import contextlib
import functools
import importlib
import math
import os
import pathlib
import sys
import types

import numpy as np
from _processes import of_each
from _quadratics import Arrays, flat, gradient, quadratics, split

STEPS, WORKERS, RANK, MOMENTUM, DENSE = 20, 3, 2, 0.9, 4
RATES = np.where(np.arange(STEPS) < STEPS // 2, 0.05, 0.02)
SHAPES = [(3,), (6, 5), (6, 5), (4, 12)]
PROBLEM = quadratics(STEPS, WORKERS, sum(map(math.prod, SHAPES)))


class Generator:
    """NumPy's own, without the 2^27 numbers that a reducer stores and never reads."""

    def __init__(self, seed):
        self.own = np.random.RandomState(seed)

    def randn(self, *shape):
        return np.zeros(1)

    def __getattr__(self, name):
        return getattr(self.own, name)


def paper(torch, worker: int, checkout: str) -> Arrays:
    """The reducer of the paper's experiments, in the loop of their train.py."""
    sys.path.insert(0, os.path.join(checkout, "paper-code"))
    theirs = importlib.import_module("gradient_reducers")
    numpy = types.SimpleNamespace(random=types.SimpleNamespace(RandomState=Generator))
    exactly = functools.partial(theirs.orthogonalize, eps=0.0)
    vars(theirs).update(np=numpy, orthogonalize=exactly)

    def quiet(*args, **kwargs):
        return contextlib.nullcontext()

    reducer = theirs.RankKReducer(0, "cpu", quiet, reuse_query=True, rank=RANK)
    drawn, set_random = [], reducer.set_random

    def remember(vector):
        set_random(vector)
        drawn.append(vector.numpy().copy())

    reducer.set_random = remember
    params = split(torch, PROBLEM["start"], SHAPES)
    memories, momenta = ([torch.zeros_like(p) for p in params] for _ in range(2))
    weights, residuals = [flat(params)], [flat(memories)]
    for t, rate in enumerate(RATES):
        new = gradient(PROBLEM, worker, t, weights[-1])
        grads = split(torch, new, SHAPES)
        sent = [g + e for g, e in zip(grads, memories, strict=True)]
        reducer.reduce(sent, grads, memories)
        for p, g, m in zip(params, grads, momenta, strict=True):
            m.mul_(MOMENTUM).add_(g)
            p.sub_(rate * (g + m))
        weights.append(flat(params))
        residuals.append(flat(memories))
    first, last, wide = drawn
    return {
        "weights": np.stack(weights),
        "residuals": np.stack(residuals),
        "factors of matrices": np.stack([first, last]),
        "factors of wide": wide[None],
    }


def library(torch, worker: int, checkout: str) -> Arrays:
    """The library, around PyTorch's SGD with momentum."""
    sys.path.insert(0, checkout)
    powersgd = importlib.import_module("powersgd")
    params = [torch.nn.Parameter(p) for p in split(torch, PROBLEM["start"], SHAPES)]
    optimizer = torch.optim.SGD(params, lr=0.0, momentum=MOMENTUM)
    config = powersgd.Config(
        rank=RANK, min_compression_rate=1, start_compressing_after_num_steps=DENSE
    )
    aggregator = powersgd.PowerSGD(params, config)
    matrices, wide = (p.numpy().copy() for p in aggregator._powersgd._ps)
    for p in params:
        p.grad = torch.zeros_like(p)
    weights, residuals = [flat(params)], [np.zeros(len(PROBLEM["start"]))]
    for t, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = rate
        new = gradient(PROBLEM, worker, t, weights[-1])
        for p, g in zip(params, split(torch, new, SHAPES), strict=True):
            p.grad.add_(g)  # As `backward` does.
        powersgd.optimizer_step(optimizer, aggregator)
        weights.append(flat(params))
        residuals.append(flat([p.grad for p in params]))
    return {
        "weights": np.stack(weights),
        "residuals": np.stack(residuals),
        "factors of matrices": matrices,
        "factors of wide": wide,
    }


RUNS = {"paper": paper, "library": library}


def work(name: str, checkout: str, meeting: str, worker: int, workers: int) -> Arrays:
    torch = importlib.import_module("torch")
    importlib.import_module("torch.distributed")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=worker, world_size=workers
    )
    return RUNS[name](torch, worker, checkout)


def main() -> None:
    checkout = sys.argv[1]
    arrays = {**PROBLEM, "rates": RATES}
    for name in RUNS:
        parts = of_each(work, WORKERS, name, checkout)
        for what in parts[0]:
            if what == "residuals":
                arrays[f"{name}/{what}"] = np.stack([part[what][-1] for part in parts])
            else:
                assert all((part[what] == parts[0][what]).all() for part in parts)
                arrays[f"{name}/{what}"] = parts[0][what]
    file = pathlib.Path(__file__).with_name("powersgd_trajectories.npz")
    np.savez_compressed(file, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
