"""Faulty workers, and how often majority votes err."""

import math

import numpy as np
import pytest

from experiments.studies.votes import study
from experiments.studies.votes.study import Votes
from experiments.training import record


@pytest.mark.slow
def test_three_liars_of_seven_spoil_a_mean_but_not_a_vote():
    short = Votes(steps=120)
    honest = study.train("mean", 0, 0, short)
    assert honest > 0.7
    assert study.train("mean", 3, 0, short) < 0.3
    assert study.train("vote", 3, 0, short) > 0.6


def test_votes_err_as_the_normal_distribution_says():
    """Each voter errs with p = P[N < -1 / noise]; three of them with 3p^2 - 2p^3."""
    p = 0.5 * math.erfc(1 / 3 / math.sqrt(2))
    one, three = (study.errors(workers, 0, 3.0) for workers in (1, 3))
    assert one["vote"] == one["mean"] == pytest.approx(p, abs=0.01)
    assert three["vote"] == pytest.approx(3 * p**2 - 2 * p**3, abs=0.01)
    mean = 0.5 * math.erfc(math.sqrt(3) / 3 / math.sqrt(2))
    assert three["mean"] == pytest.approx(mean, abs=0.01)


@pytest.mark.slow
def test_the_command_leaves_a_log_and_a_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "COUNTS", (1, 3))
    study.main(Votes(steps=2, workers=3, liars=1, seeds=1, results=tmp_path))
    path = tmp_path / "votes" / "run-001"
    rows = record.read(path)
    assert [row["kind"] for row in rows[1:]] == ["training"] * 4 + ["errors"] * 2
    assert (path / "figure.png").exists()
    assert np.isfinite([row["accuracies"] for row in rows[1:5]]).all()
    assert "faulty" in capsys.readouterr().out


def test_numbers_out_of_range_are_errors():
    with pytest.raises(ValueError, match="one worker must be honest"):
        Votes(workers=3, liars=3)
    with pytest.raises(ValueError, match="`workers` must be odd"):
        Votes(workers=4)
    with pytest.raises(ValueError, match="`noise`"):
        Votes(noise=0)
