"""Records what the code of Quasi-Global Momentum does on small quadratics.

    python tests/support/data/record_quasi_global_trajectories.py CHECKOUT

CHECKOUT is a checkout of epfml/quasi-global-momentum, which is imported as it is;
quasi_global.md beside this file says with which versions that was done, and what is in
the place of the rest. Nothing of the project is imported: the environment needs PyTorch
and NumPy only.
"""

import contextlib
import importlib
import os
import pathlib
import sys
import types
from typing import Any, NamedTuple

import numpy as np
from _processes import of_each
from _quadratics import Arrays, flat, gradient, quadratics, split

STEPS, WORKERS, DECAY = 16, 5, 0.1
SHAPES = [(4,), (2, 6)]
PROBLEM = quadratics(STEPS, WORKERS, 16)
STEADY = np.full(STEPS, 0.1)
FALLING = np.where(np.arange(STEPS) < STEPS // 2, 0.1, 0.04)


class Run(NamedTuple):
    """A file of theirs, and the settings of its optimizer, under their names."""

    file: str
    momentum: float
    nesterov: bool = False
    rates: np.ndarray = FALLING
    factor: float | None = None


RUNS = {
    "quasi-global": Run("decentralized_qg_sgd", 0.9),
    "quasi-global nesterov": Run("decentralized_qg_sgd", 0.8, True, factor=0.25),
    "tracking": Run("decentralized_sgd_with_gradient_tracking", 0.9, True),
    "d2": Run("decentralized_d2", 0.0, rates=STEADY),
}


def ring(worker: int) -> types.SimpleNamespace:
    """In the place of their graph; each worker has a third of the weight."""
    weights = {(worker + far) % WORKERS: 1 / 3 for far in (-1, 0, 1)}
    return types.SimpleNamespace(
        rank=worker,
        ranks=list(range(WORKERS)),
        n_nodes=WORKERS,
        in_neighborhood=weights,
        out_neighborhood=weights,
    )


def quiet(*args, **options):
    del args, options
    return contextlib.nullcontext()


def record(torch, run: Run, worker: int) -> np.ndarray:
    """One worker's weights before the first step and after each."""
    start = split(torch, PROBLEM["start"], SHAPES)
    params = [torch.nn.Parameter(p) for p in start]
    conf = types.SimpleNamespace(
        graph=ring(worker),
        graph_topology="ring",
        slow_buffer_conf=None if run.factor is None else f"factor={run.factor}",
        is_centralized=False,
        comm_device="cpu",
        epoch_=0,
        local_index=0,
    )
    groups = [
        {"params": [p], "name": name, "param_size": p.size(), "nelement": p.nelement()}
        for name, p in zip(("bias", "kernel"), params, strict=True)
    ]
    optimizer = importlib.import_module(f"pcode.optim.{run.file}").SGD(
        groups,
        lr=float(run.rates[0]),
        momentum=run.momentum,
        nesterov=run.nesterov,
        weight_decay=DECAY,
        conf=conf,
    )

    weights = [flat(params)]
    for t, rate in enumerate(run.rates):
        new = gradient(PROBLEM, worker, t, weights[-1])
        for p, g in zip(params, split(torch, new, SHAPES), strict=True):
            p.grad = g
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        conf.local_index = t
        optimizer.step(timer=quiet)
        weights.append(flat(params))
    return np.stack(weights)


def work(checkout: str, meeting: str, worker: int, workers: int) -> Arrays:
    """One process: one worker of all runs."""
    sys.path.insert(0, os.path.join(checkout, "code"))
    sys.modules["bit2byte"] = types.ModuleType("bit2byte")  # It packs signs.
    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=worker, world_size=workers
    )
    return {name: record(torch, run, worker) for name, run in RUNS.items()}


def main() -> None:
    arrays: dict[str, Any] = {**PROBLEM, "decay": np.array(DECAY)}
    parts = of_each(work, WORKERS, sys.argv[1])
    for name, run in RUNS.items():
        arrays[f"{name}/weights"] = np.stack([part[name] for part in parts], axis=1)
        arrays[f"{name}/rates"] = run.rates
        arrays[f"{name}/momentum"] = np.array(run.momentum)
        if run.factor is not None:
            arrays[f"{name}/factor"] = np.array(run.factor)
    file = pathlib.Path(__file__).with_name("quasi_global_trajectories.npz")
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
