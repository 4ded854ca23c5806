"""Whether what the planner calls safe did reach the loss of dense, in kept results."""

from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from experiments.studies.choices import study
from experiments.studies.equal_bytes import table
from experiments.training import record
from gmc_jax.costs.candidates import candidates, never_meeting
from gmc_jax.costs.compression_cost import CPU_2_CORES
from gmc_jax.costs.patterns import DENSE, Pattern
from gmc_jax.costs.worth import Worth, worth
from tests.support.markdown_pages import ROOT
from tests.support.planned import PARAMS

RESULTS = ROOT / "experiments" / "results"
WORSE = 0.1
"""How far above dense a method that is called safe may end."""


class Measured(NamedTuple):
    """The loss at the last step of one method, and which of the planner's it is.

    Attributes:
      method: its name in the log.
      loss: the mean over seeds.
      pattern: its name in a plan.
      ratio: the share of the entries that messages hold; None for all of them.
      period: the steps between synchronisations of local methods.
    """

    method: str
    loss: float
    pattern: str
    ratio: float | None = None
    period: int = 12


@cache
def planned_for(
    workers: int, ratios: tuple[float, ...], period: int, optimizer: str
) -> list[Pattern]:
    return candidates(PARAMS, workers, ratios, [period], CPU_2_CORES, optimizer)


class Kept(NamedTuple):
    """Losses on one problem, of methods over one optimizer.

    Attributes:
      optimizer: the optimizer, as in `plan`.
      steps: the steps of the training.
      workers: the number of workers.
      dense: the loss of the method that all are compared with.
      measured: the methods.
    """

    optimizer: str
    steps: int
    workers: int
    dense: float
    measured: list[Measured]

    def above(self, one: Measured) -> float:
        """How far a method ended above dense."""
        return one.loss - self.dense

    def worth(self, one: Measured) -> Worth:
        """What the planner says of a method."""
        ratios = (one.ratio,) if one.ratio else ()
        patterns = [
            *planned_for(self.workers, ratios, one.period, self.optimizer),
            never_meeting(self.steps, self.optimizer),
        ]
        (pattern,) = (
            pattern
            for pattern in patterns
            if (pattern.name, pattern.ratio) == (one.pattern, one.ratio)
        )
        return worth(pattern, self.steps)


SGD = {
    "gmc": ("GMC, top_k", 0.01),
    "ef_sgd": ("GMC, top_k", 0.01),
    "cser": ("CSER of blocks, reset every 12", 0.01),
    "gmc_two_phase": ("GMC, integers(8) both ways", None),
    "ef_sign_sgd": ("GMC, scaled_sign", None),
    "power_sgd": ("PowerSGD, rank 2", None),
    "qsgd": ("QSGD", None),
    "terngrad": ("TernGrad", None),
    "sign_sgd": ("signSGD, Signum, majority vote", None),
    "signum": ("signSGD, Signum, majority vote", None),
    "local_sgd": ("local SGD, SlowMo every 12", None),
    "slowmo": ("local SGD, SlowMo every 12", None),
    "slowmo_local_sgd_0.0": ("local SGD, SlowMo every 12", None),
    "cocod_sgd": ("CoCoD-SGD every 12", None),
    "d_psgd": ("D-PSGD, ring", None),
    "slowmo_d_psgd_0.0": ("D-PSGD, ring", None),
    "slowmo_sgp_0.0": ("SGP, one peer", None),
    "slowmo_osgp_0.0": ("SGP, one peer, delay 1", None),
}
ADAM = {
    "one_bit_adam": ("Adam, scaled_sign", None),
    "distributed_lion": ("Distributed Lion, majority vote", None),
    "local_adam": ("local Adam, SlowMo every 12", None),
    "diloco": ("local Adam, SlowMo every 12", None),
    "streaming_diloco": ("Streaming DiLoCo, 4 parts every 12, delay 1", None),
    "sparse_loco": ("SparseLoCo every 12", 0.01),
}
SPARSER = {"gmc": ("GMC, top_k", 0.001)}
UNDER_ADAM = {
    "never": "never meeting",
    "behind": "Adam, top_k",
    "sparse_loco": "SparseLoCo every {}",
    "blocks_adam": "local, GMC of random_block every {}",
    "diloco": "local Adam, SlowMo every {}",
    "streaming_diloco": "Streaming DiLoCo, 4 parts every {}, delay 1",
    "one_bit_adam": "Adam, scaled_sign",
    "rank_4": "PowerSGD, rank 4",
    "eight_bits": "Adam, integers(8) both ways",
    "lion": "Distributed Lion, majority vote",
}


def planned(losses: dict[str, float], names: dict) -> list[Measured]:
    """Those of the methods that a plan has."""
    return [
        Measured(method, loss, *names[method])
        for method, loss in losses.items()
        if method in names
    ]


def equal_bytes(problem: str, optimizer: str) -> Kept:
    rows = record.read(RESULTS / "equal_bytes")
    lines = table.lines(rows)[problem]
    losses = {name: float(line.means[0]) for name, line in lines.items()}
    options = rows[0]["config"]["problems"][problem]
    dense, names = {"sgd": ("dmsgd", SGD), "adam": ("adam", ADAM)}[optimizer]
    given = options["steps"], options["workers"], losses[dense]
    return Kept(optimizer, *given, planned(losses, names))


def run(name: str, dense: str, names: dict) -> Kept:
    """A named run with momentum SGD; the mean over seeds."""
    header, *rows = record.read(RESULTS / name)
    ends = [row for row in rows if row["kind"] == "summary"]
    losses = {
        method: float(np.mean([row["loss"] for row in ends if row["method"] == method]))
        for method in {row["method"] for row in ends}
    }
    given = ends[0]["step"], header["config"]["workers"], losses[dense]
    return Kept("sgd", *given, planned(losses, names))


def under_adam(path: Path, workers: int) -> Kept:
    """The study of Adam: each method, ratio and period at its best rate."""
    header, *rows = record.read(path)
    trained = [
        row
        for row in rows
        if row["kind"] == "under_adam" and (row["workers"], row["seed"]) == (workers, 0)
    ]
    best: dict[tuple[str, float, int], float] = {}
    for row in trained:
        key = row["method"], row["ratio"], row["period"]
        best[key] = min(best.get(key, np.inf), table.finite(row["loss"]))
    measured = [
        Measured(
            method,
            loss,
            UNDER_ADAM[method].format(period),
            ratio if method in ("behind", "sparse_loco", "blocks_adam") else None,
            period if period > 1 else 12,
        )
        for (method, ratio, period), loss in best.items()
        if method in UNDER_ADAM
    ]
    (dense,) = (loss for (method, *_), loss in best.items() if method == "adam")
    return Kept("adam", header["config"]["problem"]["steps"], workers, dense, measured)


def choices(path: Path) -> Kept:
    """What the planner chose, trained from the Python that it printed."""
    header, *rows = record.read(path)
    best = study.best(rows)
    config = header["config"]
    (dense,) = (row["loss"] for row in best if row["method"] == DENSE.name)
    measured = [
        Measured(*(row["method"], row["loss"], row["method"], row["ratio"]))
        for row in best
    ]
    given = config["steps"], config["workers"], dense, measured
    return Kept(config["optimizer"], *given)


KEPT = {
    "equal_bytes, digits, sgd": lambda: equal_bytes("digits", "sgd"),
    "equal_bytes, digits, adam": lambda: equal_bytes("digits", "adam"),
    "equal_bytes, text, sgd": lambda: equal_bytes("text", "sgd"),
    "equal_bytes, text, adam": lambda: equal_bytes("text", "adam"),
    "slowmo_digits": lambda: run("slowmo_digits", "slowmo_all_reduce_0.0", SGD),
    "signum_digits": lambda: run("signum_digits", "dmsgd", SGD),
    "d2_digits": lambda: run("d2_digits", "dmsgd", SGD),
    "small_vit": lambda: run("small_vit", "dmsgd", SGD),
    "small_vit_sparse": lambda: run("small_vit_sparse", "dmsgd", SPARSER),
    "choices": lambda: choices(RESULTS / "choices"),
}
if (RESULTS / "adam").exists():
    KEPT |= {
        f"adam, {workers} workers": partial(under_adam, RESULTS / "adam", workers)
        for workers in (4, 8)
    }


@cache
def kept_as(name: str) -> Kept:
    return KEPT[name]()


@pytest.mark.parametrize("name", KEPT)
def test_what_is_called_safe_ended_at_most_a_tenth_above_dense(name):
    kept = kept_as(name)
    assert kept.measured
    for one in kept.measured:
        assert kept.worth(one).verdict != "safe" or kept.above(one) <= WORSE, one


def test_the_first_choice_beats_never_meeting():
    """The safe method with the shortest training, as it was planned."""
    kept = kept_as("choices")
    losses = {one.method: one.loss for one in kept.measured}
    safe = {one.method for one in kept.measured if kept.worth(one).verdict == "safe"}
    planned = study.best(record.read(RESULTS / "choices"))
    chosen = [row for row in planned if row["method"] in safe]
    first = min(chosen, key=lambda row: row["seconds"])
    assert first["loss"] < losses["never meeting"] - 0.05
    assert first["seconds"] < 0.7 * next(
        row["seconds"] for row in planned if row["method"] == DENSE.name
    )


def test_much_is_called_safe_and_what_failed_is_not():
    """Otherwise the planner could call nothing safe."""
    everything = [(kept, one) for kept in map(kept_as, KEPT) for one in kept.measured]
    safe = [one for kept, one in everything if kept.worth(one).verdict == "safe"]
    failed = [one for kept, one in everything if kept.above(one) > WORSE]
    assert len(safe) >= 16
    assert len(failed) >= 10
    assert not set(safe) & set(failed)
