"""Tests of the comparison of Katyusha X with SVRG, on small problems."""

import jax
import numpy as np
import pytest

from experiments.studies.pca import study
from experiments.studies.pca.study import PCA
from experiments.training import record


def test_the_problem_is_convex_in_the_mean_and_not_sample_by_sample():
    problem = study.problem(0, gap=0.1)
    assert np.linalg.eigvalsh(problem.hessian)[0] == pytest.approx(problem.sigma)
    lengths = (problem.samples**2).sum(axis=1)
    assert (lengths > problem.shift).mean() > 0.5
    with jax.enable_x64(True):
        x = np.linspace(-1, 1, study.D)
        mean = problem.gradient(
            jax.numpy.asarray(x), jax.numpy.asarray(problem.samples)
        )
    np.testing.assert_allclose(mean, problem.hessian @ x - problem.b, atol=1e-12)


@pytest.mark.slow
def test_momentum_between_epochs_needs_fewer_gradients():
    with jax.enable_x64(True):
        problem = study.problem(0, gap=0.1)
        needed = {
            method: study.evaluations(study.solve(method, 0.4, 8, problem, 0, 120))
            for method in ("svrg", "katyusha_xs")
        }
    assert needed["katyusha_xs"] < 0.7 * needed["svrg"] < np.inf


def test_a_growing_loss_ends_the_trajectory_and_counts_as_never():
    with jax.enable_x64(True):
        gaps = study.solve("svrg", 50.0, 8, study.problem(0, gap=0.1), 0, 50)
    assert len(gaps) < 50
    assert study.evaluations(gaps) == np.inf
    assert study.evaluations([1.0, 1e-3, 1e-9]) == 2 * 3 * study.SAMPLES


def test_the_command_leaves_a_log_and_a_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "RATES", (0.4,))
    study.main(PCA(gap=1.0, workers=2, seeds=1, epochs=3, results=tmp_path))
    path = tmp_path / "pca" / "run-001"
    rows = record.read(path)
    walks = [row for row in rows if row["kind"] == "walks"]
    asked = {(row["method"], row["workers"]) for row in walks}
    assert asked == {(method, 1) for method in study.LABELS} | {("katyusha_xs", 2)}
    assert (path / "figure.png").exists()
    assert "Katyusha X^s" in capsys.readouterr().out


def test_numbers_out_of_range_are_errors():
    with pytest.raises(ValueError, match="`gap`"):
        PCA(gap=0)
    with pytest.raises(ValueError, match="`seeds`"):
        PCA(seeds=0)
