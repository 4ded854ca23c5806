"""Records what the code of Overlap-Local-SGD does on small quadratics.

    python tests/support/data/record_overlap_trajectories.py CHECKOUT

CHECKOUT is a checkout of JYWa/Overlap_Local_SGD, which is imported as it is; README.md
beside this file says with which versions that was done, and what is patched. The
problem is that of `def_trajectories.npz`. Nothing of the project is imported: the
environment needs PyTorch and NumPy only.
"""

import datetime
import importlib
import pathlib
import sys
import types
from typing import NamedTuple

import numpy as np
from _processes import of_each

FOLDER = pathlib.Path(__file__).parent
STEPS, BIAS, MOMENTUM, DECAY = 20, 4, 0.9, 0.1
FALLING = np.where(np.arange(STEPS) < STEPS // 2, 0.05, 0.02)
STEADY = np.full(STEPS, 0.05)


class Run(NamedTuple):
    """An optimizer of theirs, and what it is run with."""

    optimizer: str
    options: dict[str, float]
    rates: np.ndarray = FALLING
    workers: int = 4


RUNS = {
    "easgd": Run("EASGD", {"alpha": 0.2, "tau": 3}),
    "easgd pair": Run("EASGD", {"alpha": 0.45, "tau": 1}, workers=2),
    "cocod": Run("CoCoDSGD", {"alpha": 0, "gmf": 0, "tau": 3}),
    "overlap": Run("OverlapLocalSGD", {"alpha": 0.6, "gmf": 0.7, "tau": 2}, STEADY),
    "overlap pair": Run(
        "OverlapLocalSGD", {"alpha": 0.3, "gmf": 0.0, "tau": 4}, STEADY, workers=2
    ),
    "local": Run("LocalSGD", {"gmf": 0.0, "tau": 3}),
    "slow momentum": Run("LocalSGD", {"gmf": 0.7, "tau": 4}),
}


def communicate(tensors, operation):
    """Reduces tensors where they lie, one by one."""
    for tensor in tensors:
        operation(tensor)


def record(run: Run, worker: int, modules: dict[str, types.ModuleType]) -> np.ndarray:
    """One worker's parameters before the first step and after each."""
    torch = modules["torch"]
    with np.load(FOLDER / "def_trajectories.npz") as file:
        names = ("hessians", "targets", "noise", "start")
        problem = {name: torch.tensor(file[name]).double() for name in names}
    start = problem["start"]
    params = [start[:BIAS].clone(), start[BIAS:].reshape(2, -1).clone()]
    optimizer = getattr(modules["distoptim"], run.optimizer)(
        params,
        lr=run.rates[0],
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=DECAY,
        size=run.workers,
        **run.options,
    )

    def average(count: int) -> None:
        """Their loops call it after each step; it acts at multiples of tau."""
        if run.optimizer == "EASGD":
            optimizer.block_average(count, run.options["tau"])
        else:
            optimizer.average()

    def flat():
        return torch.cat([x.flatten() for x in params])

    average(0)  # Theirs count calls from 0; so the first tau steps are a period.
    weights = [flat()]
    for step, rate in enumerate(run.rates):
        off = weights[-1] - problem["targets"][worker]
        gradient = problem["hessians"][worker] @ off + problem["noise"][step, worker]
        params[0].grad = gradient[:BIAS].clone()
        params[1].grad = gradient[BIAS:].reshape(2, -1).clone()
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        average(step + 1)
        weights.append(flat())
    if hasattr(optimizer, "comm_finish"):  # The next run uses the same connections.
        optimizer.comm_finish.wait()
    return torch.stack(weights).numpy()


def work(
    checkout: str, meeting: str, worker: int, workers: int
) -> dict[str, np.ndarray]:
    """One process: one worker of all runs with that many."""
    sys.path.insert(0, checkout)
    names = ["torch", "torch.distributed", "distoptim"]
    modules = {name: importlib.import_module(name) for name in names}
    for run in RUNS.values():
        vars(sys.modules[f"distoptim.{run.optimizer}"])["communicate"] = communicate
    modules["torch.distributed"].init_process_group(
        "gloo",
        init_method=meeting,
        rank=worker,
        world_size=workers,
        timeout=datetime.timedelta(seconds=60),
    )
    return {
        name: record(run, worker, modules)
        for name, run in RUNS.items()
        if run.workers == workers
    }


def main() -> None:
    """Runs everything and writes overlap_trajectories.npz beside this file."""
    (checkout,) = sys.argv[1:]
    arrays = {}
    for workers in sorted({run.workers for run in RUNS.values()}):
        parts = of_each(work, workers, checkout)
        for name in parts[0]:
            run = RUNS[name]
            arrays[f"{name}/weights"] = np.stack([part[name] for part in parts], axis=1)
            settings = {"workers": workers, "decay": DECAY, **run.options}
            arrays |= {f"{name}/{what}": np.array(x) for what, x in settings.items()}
            arrays[f"{name}/rates"] = run.rates
    file = FOLDER / "overlap_trajectories.npz"
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
