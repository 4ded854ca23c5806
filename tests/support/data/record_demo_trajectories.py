"""Records what the authors' code of DeMo does on small quadratics.

    python tests/support/data/record_demo_trajectories.py CHECKOUT

CHECKOUT is a checkout of bloc97/DeMo, which is imported as it is; demo.md beside this
file says with which versions that was done. Nothing of the project is imported: the
environment needs PyTorch, einops and NumPy only.
"""

import importlib
import math
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np
from _processes import of_each
from _quadratics import Arrays, flat, gradient, quadratics, split

STEPS, WORKERS = 16, 3
SHAPES = [(8,), (6, 8), (4, 12)]
STEADY = np.full(STEPS, 0.05)
UP_AND_DOWN = 0.1 * np.minimum(np.arange(STEPS) / 4, np.arange(STEPS, 0, -1) / 12)


class Run(NamedTuple):
    """What the optimizer is given, without the `compression_` of its names."""

    decay: float
    chunk: int
    topk: int
    weight_decay: float
    rates: np.ndarray


RUNS = {
    "chunks": Run(decay=0.9, chunk=4, topk=3, weight_decay=0.1, rates=UP_AND_DOWN),
    "defaults": Run(decay=0.999, chunk=64, topk=32, weight_decay=0.0, rates=STEADY),
}


PROBLEM = quadratics(STEPS, WORKERS, sum(map(math.prod, SHAPES)))


def work(checkout: str, meeting: str, worker: int, workers: int) -> dict[str, Arrays]:
    """One process: one worker of all runs."""
    sys.path.insert(0, checkout)
    torch: Any = importlib.import_module("torch")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    theirs = importlib.import_module("demo")
    distributed = importlib.import_module("torch.distributed")
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=worker, world_size=workers
    )
    found = {}
    for name, run in RUNS.items():
        start = split(torch, PROBLEM["start"], SHAPES)
        params = [torch.nn.Parameter(p) for p in start]
        optimizer = theirs.DeMo(
            params,
            lr=1.0,
            weight_decay=run.weight_decay,
            compression_decay=run.decay,
            compression_chunk=run.chunk,
            compression_topk=run.topk,
        )
        weights = [flat(params)]
        for t, rate in enumerate(run.rates):
            new = gradient(PROBLEM, worker, t, weights[-1])
            for p, g in zip(params, split(torch, new, SHAPES), strict=True):
                p.grad = g
            optimizer.param_groups[0]["lr"] = float(rate)
            optimizer.step()
            weights.append(flat(params))
        deltas = flat([optimizer.demo_state[p]["delta"] for p in params])
        found[name] = {"weights": np.stack(weights), "deltas": deltas}
    return found


def main() -> None:
    arrays: dict[str, Any] = dict(PROBLEM)
    parts = of_each(work, WORKERS, sys.argv[1])
    for name, run in RUNS.items():
        weights = [part[name]["weights"] for part in parts]
        assert all((other == weights[0]).all() for other in weights)
        arrays[f"{name}/weights"] = weights[0]
        arrays[f"{name}/deltas"] = np.stack([part[name]["deltas"] for part in parts])
        settings = run._asdict().items()
        arrays |= {f"{name}/{what}": np.array(value) for what, value in settings}
    file = pathlib.Path(__file__).with_name("demo_trajectories.npz")
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
