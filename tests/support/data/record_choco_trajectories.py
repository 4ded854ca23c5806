"""Records what the authors' NumPy code of CHOCO-SGD does on small logistic problems.

    python tests/support/data/record_choco_trajectories.py CHECKOUT

CHECKOUT is a checkout of epfml/ChocoSGD, which is imported as it is; choco.md beside
this file says with which versions that was done. Nothing of the project is imported:
the environment needs NumPy, SciPy and NetworkX only.
"""

import contextlib
import importlib
import io
import os
import pathlib
import sys
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

D, PER_WORKER, EPOCHS, MOST_WORKERS, REGULARIZER = 12, 12, 2, 9, 0.05
FALLING = {"lr_type": "decay", "initial_lr": 1.0, "tau": 30}
STEADY = {"lr_type": "constant", "initial_lr": 0.4}
Arrays = dict[str, np.ndarray]


class Run(NamedTuple):
    """What the code is given, under its own names."""

    method: str
    quantization: str
    topology: str = "ring"
    n_cores: int = 4
    consensus_lr: float | None = None
    coordinates_to_keep: int | None = None
    rate: dict[str, str | float] = FALLING


RUNS = {
    "plain": Run("plain", "full"),
    "choco largest": Run("choco", "top", "ring", 4, 0.3, 3),
    "choco random": Run("choco", "random-biased", "ring", 5, 0.25, 3, STEADY),
    "choco torus": Run("choco", "top", "torus", 9, 0.5, 4, STEADY),
    "choco whole": Run("choco", "full", "centralized", 4, 1.0),
    "dcd random": Run("dcd-psgd", "random-unbiased", "ring", 4, None, 10),
}


def samples() -> Arrays:
    """In 16 bits, to be stored exactly; the code wants labels of -1 and 1."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(MOST_WORKERS * PER_WORKER, D)).astype(np.float16)
    noisy = inputs @ draw.normal(size=D) + draw.normal(size=len(inputs))
    return {"inputs": inputs, "labels": np.where(noisy > 0, 1, -1).astype(np.int8)}


def record(theirs, parameters, run: Run) -> Arrays:
    class Remembering(theirs.LogisticDecentralizedSGD):
        """It asks for the rate before a step, and ends each step with an estimate."""

        def lr(self, *args):
            if not rates:
                keep(self)
            rates.append(super().lr(*args))
            return rates[-1]

        def update_estimate(self, t):
            super().update_estimate(t)
            keep(self)

    rates, weights, estimates, drawn, places = [], [], [], [], []
    choose = np.random.choice

    def keep(model):
        weights.append(model.x.T.copy())
        estimates.append(model.x_hat.T.copy())

    def remembered(pool, *size, **options):
        found = choose(pool, *size, **options)
        (places if size else drawn).append(found)
        return found

    settings = run._asdict()
    rate = settings.pop("rate")
    given = parameters.Parameters(
        name="a run",  # Without one it cannot be printed.
        num_epoch=EPOCHS,
        regularizer=REGULARIZER,
        distribute_data=True,
        split_data_strategy="naive",
        random_seed=1,
        split_data_random_seed=2,
        **rate,
        **settings,
    )
    problem = samples()
    count = run.n_cores * PER_WORKER
    inputs = problem["inputs"][:count].astype(np.float64)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(np.random, "normal", np.random.default_rng(3).normal),
        mock.patch.object(np.random, "choice", remembered),
    ):
        Remembering(given).fit(inputs, problem["labels"][:count].astype(np.float64))
    steps = EPOCHS * PER_WORKER
    found = {
        "weights": np.stack(weights),
        "rates": np.array(rates, np.float64),
        "samples": np.array(drawn, np.int16).reshape(steps, run.n_cores),
    }
    if run.method == "choco":
        found["estimates"] = estimates[-1]
        found["consensus_lr"] = np.array(run.consensus_lr)
    if run.coordinates_to_keep:
        found["kept"] = np.array(run.coordinates_to_keep)
    if places:
        found["places"] = np.array(places, np.int8).reshape(steps, run.n_cores, -1)
    return found


def main() -> None:
    sys.path.insert(0, os.path.join(sys.argv[1], "convex_code"))
    theirs = importlib.import_module("logistic")
    parameters = importlib.import_module("parameters")
    arrays: dict[str, Any] = {**samples(), "regularizer": np.array(REGULARIZER)}
    for name, run in RUNS.items():
        found = record(theirs, parameters, run)
        arrays |= {f"{name}/{what}": array for what, array in found.items()}
    file = pathlib.Path(__file__).with_name("choco_trajectories.npz")
    np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
