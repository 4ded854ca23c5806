"""Whether what the planner calls safe did reach the loss of dense, in kept results."""

from typing import NamedTuple

import numpy as np
import pytest

from experiments.studies.equal_bytes import table
from experiments.training import record
from gmc_jax.costs.candidates import candidates, never_meeting
from gmc_jax.costs.compression_cost import CPU_2_CORES
from gmc_jax.costs.worth import Worth, worth
from tests.support.markdown_pages import ROOT
from tests.support.planned import PARAMS

RESULTS = ROOT / "experiments" / "results"
WORSE = 0.1
"""How far above dense a method that is called safe may end."""


class Kept(NamedTuple):
    """Losses at the last step, on one problem, of methods over one optimizer.

    Attributes:
      optimizer: the optimizer, as in `plan`.
      steps: the steps of the training.
      workers: the number of workers.
      losses: the loss of each method, by name.
      dense: the method that all are compared with.
      never: the method that meets once, at the end; empty if there is none.
      planned: each method's name and ratio in a plan.
    """

    optimizer: str
    steps: int
    workers: int
    losses: dict[str, float]
    dense: str
    never: str
    planned: dict[str, tuple[str, float | None]]


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


def equal_bytes(problem: str, optimizer: str) -> Kept:
    rows = record.read(RESULTS / "equal_bytes")
    lines = table.lines(rows)[problem]
    losses = {name: float(line.means[0]) for name, line in lines.items()}
    options = rows[0]["config"]["problems"][problem]
    dense, planned = {"sgd": ("dmsgd", SGD), "adam": ("adam", ADAM)}[optimizer]
    given = options["steps"], options["workers"]
    return Kept(optimizer, *given, losses, dense, "", planned)


def run(name: str, dense: str, planned: dict) -> Kept:
    """A named run; the mean over seeds."""
    header, *rows = record.read(RESULTS / name)
    ends = [row for row in rows if row["kind"] == "summary"]
    losses = {
        method: float(np.mean([row["loss"] for row in ends if row["method"] == method]))
        for method in {row["method"] for row in ends}
    }
    workers = header["config"]["workers"]
    return Kept("sgd", ends[0]["step"], workers, losses, dense, "", planned)


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
}


def judged(kept: Kept) -> dict[str, Worth]:
    """What the planner says of each method that was measured."""
    patterns = {
        (pattern.name, pattern.ratio): pattern
        for pattern in [
            *candidates(
                PARAMS, kept.workers, [0.01, 0.001], [12], CPU_2_CORES, kept.optimizer
            ),
            never_meeting(kept.steps, kept.optimizer),
        ]
    }
    return {
        method: worth(patterns[planned], kept.steps)
        for method, planned in kept.planned.items()
        if method in kept.losses
    }


@pytest.mark.parametrize("name", KEPT)
def test_what_is_called_safe_ended_at_most_a_tenth_above_dense(name):
    kept = KEPT[name]()
    verdicts = judged(kept)
    assert verdicts
    bound = kept.losses[kept.dense] + WORSE
    unsafe = {
        method: kept.losses[method] - kept.losses[kept.dense]
        for method, said in verdicts.items()
        if said.verdict == "safe" and not kept.losses[method] <= bound
    }
    assert not unsafe


def test_many_are_called_safe_and_what_failed_is_not():
    """Otherwise the planner could call nothing safe."""
    everything = [(KEPT[name](), judged(KEPT[name]())) for name in KEPT]
    safe = [
        method
        for _, verdicts in everything
        for method, said in verdicts.items()
        if said.verdict == "safe"
    ]
    failed = [
        (method, said.verdict)
        for kept, verdicts in everything
        for method, said in verdicts.items()
        if kept.losses[method] > kept.losses[kept.dense] + WORSE
    ]
    assert len(safe) >= 18
    assert len(failed) >= 10
    assert all(verdict != "safe" for _, verdict in failed)
