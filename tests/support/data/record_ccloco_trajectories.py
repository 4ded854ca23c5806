"""Records what the code of SparseLoCo does on small quadratics, as its first version.

    python tests/support/data/record_ccloco_trajectories.py CHECKOUT

CHECKOUT is a checkout of tplr-ai/CCLoco, of which two files are imported as they are;
ccloco.md beside this file says with which versions that was done, and what is patched.
Nothing of the project is imported: the environment needs PyTorch, einops and NumPy.
"""

import importlib
import importlib.util
import math
import pathlib
import sys
import types
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from _processes import of_each
from _quadratics import Arrays, flat, gradient, quadratics, split

STEPS, WORKERS = 12, 3
MATRICES, VECTORS = [(12,), (6, 8), (4, 12)], [(12,)] * 3
PROBLEM = quadratics(STEPS, WORKERS, sum(map(math.prod, MATRICES)))
INNER = {
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
}


class Run(NamedTuple):
    """What the outer optimizer is given, under its names, and what is around it."""

    options: dict[str, Any]
    shapes: list[tuple[int, ...]]
    inner: str
    period: int


RUNS = {
    "rows": Run({"lr": 1.0, "error_decay": 0.95, "top_k": 3}, MATRICES, "AdamW", 4),
    "twice": Run(
        {
            "lr": 0.8,
            "error_decay": 0.9,
            "top_k": 2,
            "momentum": 0.5,
            "weight_decay": 0.1,
        },
        MATRICES,
        "SGD",
        3,
    ),
    "bins": Run(
        {
            "lr": 1.0,
            "error_decay": 0.95,
            "top_k": 6,
            "use_quantization": True,
            "quantization_bins": 4,
            "quantization_range": 6,
        },
        VECTORS,
        "SGD",
        2,
    ),
}


class DoublePrecision:
    """PyTorch for their compressor: where it says float32 it gets float64."""

    def __init__(self, torch):
        self.torch = torch

    def __getattr__(self, name):
        return getattr(self.torch, "float64" if name == "float32" else name)


def imported(checkout: str, name: str) -> Any:
    """A file of theirs by itself."""
    file = pathlib.Path(checkout) / "src" / "tplr" / f"{name}.py"
    spec: Any = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(torch, optimizers, strategies, run: Run, worker: int) -> Arrays:
    """Their periods, whose inner steps are ours, and the outer ones theirs."""
    start = split(torch, PROBLEM["start"], run.shapes)
    model = torch.nn.ParameterList(map(torch.nn.Parameter, start))
    params = list(model.parameters())
    inner = getattr(torch.optim, run.inner)(params, **INNER[run.inner])
    outer = optimizers.CCLoco(params, chunk_size=12, **run.options)
    strategy = strategies.Diloco(None, WORKERS, worker, None, None)
    weights = [flat(params)]
    for t in range(STEPS):
        if t % run.period == 0:
            strategy.params_offloaded = strategy._get_offloaded_param(model)
        new = gradient(PROBLEM, worker, t, weights[-1])
        for p, g in zip(params, split(torch, new, run.shapes), strict=True):
            p.grad = g
        inner.step()
        if (t + 1) % run.period == 0:
            strategy.outer_step(model, outer)
        weights.append(flat(params))
    residuals = flat([outer.state[p]["error_buffer"] for p in params])
    return {"weights": np.stack(weights), "residuals": residuals}


def work(checkout: str, meeting: str, worker: int, workers: int) -> dict[str, Arrays]:
    """One process: one worker of all runs."""
    torch: Any = importlib.import_module("torch")
    distributed: Any = importlib.import_module("torch.distributed")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    sys.modules["tplr"] = types.ModuleType("tplr")  # It is asked for its logger alone.
    optimizers = imported(checkout, "ccloco")
    strategies = imported(checkout, "strategies")
    optimizers.torch = DoublePrecision(torch)
    distributed.init_process_group(
        "gloo", init_method=meeting, rank=worker, world_size=workers
    )
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        return {
            name: record(torch, optimizers, strategies, run, worker)
            for name, run in RUNS.items()
        }


def main() -> None:
    arrays: dict[str, Any] = dict(PROBLEM)
    parts = of_each(work, WORKERS, sys.argv[1])
    for name, run in RUNS.items():
        for what in ("weights", "residuals"):
            found = [part[name][what] for part in parts]
            arrays[f"{name}/{what}"] = np.stack(found, axis=-2)
        settings = {"inner": run.inner, "period": run.period, **run.options}
        for what, value in settings.items():
            arrays[f"{name}/{what}"] = np.array(value)
    file = pathlib.Path(__file__).with_name("ccloco_trajectories.npz")
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
