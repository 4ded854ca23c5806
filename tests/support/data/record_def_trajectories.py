"""Records what the reference code of DEF does on small quadratics.

    python tests/support/data/record_def_trajectories.py CHECKOUT

CHECKOUT is a checkout of anxuthu/DEF, which is imported as it is; README.md beside this
file says with which versions that was done, and what is patched. Nothing of the project
is imported: the environment needs PyTorch and NumPy only.
"""

import datetime
import importlib
import math
import pathlib
import sys
import types
from typing import NamedTuple

import numpy as np
from _processes import of_each

STEPS, D, WORKERS, BIAS = 20, 16, 4, 4
RATIO, MOMENTUM, DECAY = 0.25, 0.9, 0.1
RATES = np.where(np.arange(STEPS) < STEPS // 2, 0.05, 0.02)
SEEDS = {"channel": 1, "reset": 2}
Arrays = dict[str, np.ndarray]


class Run(NamedTuple):
    """An optimizer of theirs, what it is given and what it is run with."""

    optimizer: str
    options: dict[str, float]
    workers: int = WORKERS
    largest: bool = False
    ratio: float = RATIO
    rates: np.ndarray = RATES
    decay: float = DECAY


STEADY = np.full(STEPS, 0.05)
RUNS = {
    "def": Run("DEF", {"coeff": 0.3}),
    "def whole": Run("DEF", {"coeff": 1.0}, workers=2),
    "def largest": Run("DEF", {"coeff": 0.3}, workers=2, largest=True),
    "saef": Run("SAEF", {"period2": 3}),
    "saef largest": Run("SAEF", {"period2": 3}, workers=2, largest=True),
    "saef largest never": Run("SAEF", {}, workers=2, largest=True),
    "cser": Run("CSER", {"period2": 4}),
    "cser silent": Run("CSER", {"period2": 2}, workers=2, ratio=0.0),
    "cser largest": Run("CSER", {"period2": 4}, workers=2, largest=True),
    "ef": Run("EF", {}),
    "ef largest": Run("EF", {}, workers=2, largest=True),
    "pef": Run("PEF", {}, rates=STEADY, decay=0.0),
    "pef largest": Run("PEF", {}, workers=2, largest=True),
}


class RecordedDraws:
    """The generator of their reducer: it remembers the starts of the blocks."""

    def __init__(self, seed):
        self.generator = np.random.RandomState(seed)
        self.starts = []

    def randn(self, *shape):
        # Theirs keeps 2^27 numbers that nothing reads: a gigabyte for each worker.
        del shape
        return np.zeros(1)

    def choice(self, *args):
        self.starts.append(self.generator.choice(*args))
        return self.starts[-1]


class DoublePrecision:
    """PyTorch for their reducer: where it says float32 it gets float64."""

    def __init__(self, torch):
        self.torch = torch

    def __getattr__(self, name):
        return getattr(self.torch, "float64" if name == "float32" else name)


class Largest:
    """A reducer of ours, theirs having none: each tensor's largest magnitudes."""

    def __init__(self, torch, ratio):
        self.torch, self.ratio = torch, ratio

    def reduce(self, inputs, means, losts):
        for tensor, mean, lost in zip(inputs, means, losts, strict=True):
            size = max(1, math.ceil(self.ratio * tensor.numel()))
            kept = tensor.abs().flatten().topk(size).indices
            sent = self.torch.zeros_like(tensor)
            sent.view(-1)[kept] = tensor.view(-1)[kept]
            lost.copy_(tensor - sent)
            mean.copy_(sent)
            self.torch.distributed.all_reduce(mean)
            mean.div_(self.torch.distributed.get_world_size())


def quadratics() -> Arrays:
    """Worker k at step t loses r H_k r / 2 + noise_tk w, where r = w - targets_k.

    Rounded to numbers of 16 bits, which are small to keep; all else is float64.
    """
    draw = np.random.default_rng(0)
    bases = np.linalg.qr(draw.normal(size=(WORKERS, D, D)))[0]
    curvatures = draw.uniform(0.5, 2.0, size=(WORKERS, D))
    exact = {
        "hessians": np.einsum("kij,kj,klj->kil", bases, curvatures, bases),
        "targets": draw.normal(size=(WORKERS, D)),
        "noise": 0.3 * draw.normal(size=(STEPS, WORKERS, D)),
        "start": 3 * draw.normal(size=D),
    }
    return {name: array.astype(np.float16) for name, array in exact.items()}


def record(run: Run, worker: int, modules: dict[str, types.ModuleType]) -> Arrays:
    """What one worker holds before the first step and after each."""
    torch, reducers = modules["torch"], modules["all_reducer"]
    problem = {name: torch.tensor(x).double() for name, x in quadratics().items()}
    start = problem["start"]
    params = [start[:BIAS].clone(), start[BIAS:].reshape(2, -1).clone()]

    def reducer(seed: int, ratio: float):
        if run.largest:
            return Largest(torch, ratio)
        return reducers.URSB(random_seed=seed, device="cpu", compression=ratio)

    def flat(tensors):
        return torch.cat([x.flatten() for x in tensors])

    channel, reset = reducer(SEEDS["channel"], run.ratio), reducer(SEEDS["reset"], 0.5)
    optimizer = getattr(modules["optimizers"], run.optimizer)(
        params,
        lr=run.rates[0],
        momentum=MOMENTUM,
        weight_decay=run.decay,
        reducer=channel,
        reducer2=reset,
        **run.options,
    )
    points, weights = [flat(params)], [flat(params)]
    for step, rate in enumerate(run.rates):
        off = points[-1] - problem["targets"][worker]
        gradient = problem["hessians"][worker] @ off + problem["noise"][step, worker]
        params[0].grad = gradient[:BIAS].clone()
        params[1].grad = gradient[BIAS:].reshape(2, -1).clone()
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        points.append(flat(params))
        weights.append(flat(optimizer.state[p].get("old", p) for p in params))

    found = {"points": torch.stack(points), "weights": torch.stack(weights)}
    if hasattr(optimizer, "swap"):
        optimizer.swap()
        found["judged"] = flat(params)
    found = {name: tensor.numpy() for name, tensor in found.items()}
    for name, one in [("starts", channel), ("reset starts", reset)]:
        if drawn := getattr(one, "rng", RecordedDraws(0)).starts:
            found[name] = np.array(drawn, np.int8).reshape(-1, len(params))
    return found


def work(checkout: str, meeting: str, worker: int, workers: int) -> dict[str, Arrays]:
    """One process: one worker of all runs with that many."""
    sys.path.insert(0, checkout)
    names = ["torch", "torch.distributed", "all_reducer", "optimizers"]
    modules = {name: importlib.import_module(name) for name in names}
    draws = types.SimpleNamespace(RandomState=RecordedDraws)
    vars(modules["all_reducer"]).update(
        np=types.SimpleNamespace(random=draws), torch=DoublePrecision(modules["torch"])
    )
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


def merge(run: Run, parts: list[Arrays]) -> Arrays:
    """The workers' records in one: what differs between them is stacked on axis 1."""
    merged = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        same = all((array == arrays[0]).all() for array in arrays)
        merged[name] = arrays[0] if same else np.stack(arrays, axis=1)
    if run.optimizer in ("EF", "PEF", "CSER"):
        # Their models are at the weights; what CSER calls "old" is never moved.
        merged["weights"] = merged.pop("points")
    return merged


def main() -> None:
    """Runs everything and writes def_trajectories.npz beside this file."""
    (checkout,) = sys.argv[1:]
    arrays = quadratics()
    for workers in sorted({run.workers for run in RUNS.values()}):
        parts = of_each(work, workers, checkout)
        for name in parts[0]:
            merged = merge(RUNS[name], [part[name] for part in parts])
            arrays |= {f"{name}/{what}": array for what, array in merged.items()}
            run = RUNS[name]
            settings = {"workers": workers, "decay": run.decay, **run.options}
            arrays |= {f"{name}/{what}": np.array(x) for what, x in settings.items()}
            arrays[f"{name}/rates"] = run.rates
    file = pathlib.Path(__file__).with_name("def_trajectories.npz")
    np.savez_compressed(file, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
