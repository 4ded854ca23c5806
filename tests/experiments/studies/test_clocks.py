"""Tests of loss against simulated seconds, in short runs."""

import dataclasses

import numpy as np
import pytest

from experiments.studies.clocks import study
from experiments.studies.clocks.study import METHODS, Clocks
from experiments.studies.clocks.trajectories import Curve
from experiments.training import record

SHORT = Clocks(workers=4, gradients=24, slowdowns=(1.0, 10.0))


SOME = {"ad_psgd"}  # One that waits for no worker.


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method in SOME else pytest.mark.slow)
        for method in METHODS
    ],
)
def test_every_method_learns_and_its_clock_advances(method):
    curve = study.follow(method, SHORT, 4, 1.0)
    assert len(curve.losses) == len(curve.seconds) == 24
    assert (np.diff(curve.seconds) > 0).all()
    assert curve.losses[-1] < 0.8 * curve.losses[0]


@pytest.mark.slow
def test_a_straggler_delays_synchronous_methods():
    ends = {
        method: [study.follow(method, SHORT, 4, slow).seconds[-1] for slow in (1, 10)]
        for method in ("all_reduce", "ad_psgd")
    }
    together, apart = (late / early for early, late in ends.values())
    assert together > 8
    assert apart < 1.5


@pytest.mark.slow
def test_a_single_worker_is_the_same_asynchronous_and_synchronous():
    """The same batches, the same steps: only the events differ."""
    single = dataclasses.replace(SHORT, workers=1)
    one, other, third = (
        study.follow(method, single, 1, 1.0)
        for method in ("all_reduce", "ad_psgd", "a_psgd")
    )
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)
    np.testing.assert_allclose(one.losses, third.losses, rtol=1e-5)


def test_when_a_goal_is_reached():
    curve = Curve(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.2, 0.1]))
    assert curve.reaches(0.2) == 2
    assert curve.reaches(0.01) == np.inf


@pytest.mark.slow
def test_the_command_leaves_a_log_and_a_figure(tmp_path, capsys):
    options = dataclasses.replace(
        SHORT, gradients=2, slowdowns=(5.0,), goal=3.0, results=tmp_path
    )
    study.main(options)
    path = tmp_path / "clocks" / "run-001"
    rows = [row for row in record.read(path) if row["kind"] == "curve"]
    assert {row["method"] for row in rows} == set(METHODS)
    assert {row["workers"] for row in rows} == {1, 2, 4, 8, 16}
    assert (path / "figure.png").exists()
    assert "AD-PSGD" in capsys.readouterr().out


def test_numbers_out_of_range_are_errors():
    with pytest.raises(ValueError, match="`workers` must be even"):
        Clocks(workers=3)
    with pytest.raises(ValueError, match=r"`slowdowns` .*0\.0"):
        Clocks(slowdowns=(1.0, 0.0))
    with pytest.raises(ValueError, match="`slowdowns` must name at least one"):
        Clocks(slowdowns=())
    with pytest.raises(ValueError, match="`bandwidth`"):
        Clocks(bandwidth=0)
    with pytest.raises(ValueError, match="`seed`"):
        Clocks(seed=-1)
