"""Figures 1 and 2 of the GMC paper: their trajectories and results."""

from collections import defaultdict

import numpy as np
import pytest

from experiments.studies.quadratic import study
from experiments.studies.quadratic.study import COMPARED, Quadratic
from experiments.training import record
from experiments.training.methods import METHODS
from tests.support import problems, references

TRANSCRIPTIONS = {
    "dmsgd": references.dmsgd,
    "dgc_unmasked": references.dgc_unmasked,
    "dgc": references.dgc,
    "gmc_server_momentum": references.gmc_server_momentum,
    "gmc": references.gmc_stored,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of one run of the command with its defaults."""
    results = tmp_path_factory.mktemp("results")
    study.main(Quadratic(results=results))
    return results / "quadratic" / "run-001"


@pytest.fixture(scope="module")
def tails(finished):
    """The mean distances at the end: problem to method to number."""
    found = defaultdict(dict)
    for row in record.read(finished)[1:]:
        found[row["problem"]][row["method"]] = row["tail_mean"]
    return found


def in_numpy(problem: study.Problem, method: str, config: Quadratic) -> np.ndarray:
    """The same run in NumPy, worker after worker."""
    workers, d = problem.minimisers.shape
    same = problems.Problem(
        hessians=np.stack([np.diag(2 * row) for row in problem.curvatures]),
        targets=problem.minimisers,
        noise=np.zeros((config.steps, workers, d)),
        start=problem.start,
    )
    dense = method == "dmsgd"
    select = references.everything if dense else references.largest(problem.s / d)
    return TRANSCRIPTIONS[method](
        same, lambda t: config.learning_rate, select, config.momentum
    )[0]


def test_the_optimum_in_the_plane():
    np.testing.assert_allclose(study.problem(2, 1).optimum, [-10 / 3, 10 / 3])


@pytest.mark.parametrize("d", [2, 20])
def test_at_the_optimum_the_mean_gradient_vanishes_and_no_workers_own_does(d):
    problem = study.problem(d, 1)
    own = 2 * problem.curvatures * (problem.optimum - problem.minimisers)

    np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-12)
    assert np.abs(own).min() > 1


@pytest.mark.parametrize("method", COMPARED)
@pytest.mark.parametrize(
    ("d", "s"), [(2, 1), pytest.param(20, 5, marks=pytest.mark.slow)]
)
def test_a_trajectory_is_that_of_the_method_in_numpy(method, d, s):
    config, problem = Quadratic(steps=100), study.problem(d, s)

    ours = study.trajectory(problem, method, config)

    assert ours.dtype == np.float64
    np.testing.assert_allclose(
        ours, in_numpy(problem, method, config), rtol=1e-9, atol=1e-9
    )


@pytest.mark.slow
def test_in_the_plane_dgc_stalls_without_masking_where_gmc_arrives(tails):
    ends = tails["d = 2, s = 1"]

    assert 0.8 < ends["dgc_unmasked"] < 1.2
    assert max(ends["gmc"], ends["dgc"], ends["dmsgd"]) < 1e-8
    assert 1e-3 < ends["gmc_server_momentum"] < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("s", [1, 5, 10])
def test_in_twenty_dimensions_gmc_ends_nearest_of_all_that_compress(tails, s):
    ends = tails[f"d = 20, s = {s}"]

    assert ends["dmsgd"] < 1e-8
    assert ends["gmc"] < min(
        ends["dgc"], ends["dgc_unmasked"], ends["gmc_server_momentum"]
    )


@pytest.mark.slow
def test_the_figures_are_pictures(finished):
    for name in ("paths.png", "distances.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_log_holds_the_configuration_and_every_distance(finished):
    header, *rows = record.read(finished)

    assert header["config"]["steps"] == 4000
    assert header["environment"]["jax"]
    assert len(rows) == 4 * len(COMPARED)
    assert all(len(row["distances"]) == 401 for row in rows)


@pytest.mark.slow
def test_the_table_has_a_line_a_method_and_nothing_is_overwritten(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(study, "COMPARED", ("dmsgd", "gmc"))
    config = Quadratic(steps=8, results=tmp_path)

    study.main(config)
    first = {path: path.read_bytes() for path in tmp_path.glob("quadratic/run-001/*")}
    study.main(config)

    assert len(first) == 3
    assert all(path.read_bytes() == old for path, old in first.items())
    assert len(list(tmp_path.glob("quadratic/run-002/*"))) == 3
    printed = capsys.readouterr().out
    for method in ("dmsgd", "gmc"):
        assert printed.count(f"│ {METHODS[method].label} ") == 2
