"""Training: rows, and resuming after an interruption."""

import dataclasses

import jax
import numpy as np
import pytest

import gmc_jax
from experiments.training import record, tasks, train
from experiments.training.config import Config
from experiments.training.methods import METHODS
from experiments.training.trainer import Trainer

CONFIG = Config(
    methods=("gmc",), compressor="random_block", workers=2, steps=6, evaluations=3
)


def stop_after(step):
    def advance(done):
        if done == step:
            raise KeyboardInterrupt

    return advance


def run(results, config, task, advance=lambda done: None):
    """Trains the method of a configuration to the end, or until `advance` raises."""
    with record.begin(results, "run", dataclasses.asdict(config)) as log:
        (method,) = config.methods
        (model,) = train.train(method, [task], [0], config, log, advance)
    return model, log


def measured(log):
    rows = [row for row in log.rows if "method" in row]
    return [{key: row[key] for key in row if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def task():
    return tasks.build(CONFIG, 0)


@pytest.fixture(scope="module")
def uninterrupted(task, tmp_path_factory):
    return run(tmp_path_factory.mktemp("uninterrupted"), CONFIG, task)


@pytest.mark.parametrize(
    ("step", "repeated"),
    [
        (3, [3, 4, 5, 6]),
        pytest.param(1, [1, 2, 3, 4, 5, 6], marks=pytest.mark.slow),
        pytest.param(6, [5, 6], marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path, task, uninterrupted, step, repeated
):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, CONFIG, task, stop_after(step))

    steps = []
    params, log = run(tmp_path, CONFIG, task, steps.append)

    assert steps == repeated
    expected, whole = uninterrupted
    assert log.path.name == "run-001"
    assert measured(log) == measured(whole)
    assert record.read(log.path) == log.rows
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.slow
def test_rows_beyond_the_last_checkpoint_are_made_again(
    tmp_path, task, uninterrupted, monkeypatch
):
    save = gmc_jax.Checkpoints.save

    def crash(checkpoints, step, state, **extras):
        if step == 4:
            raise OSError("the disk is full")
        save(checkpoints, step, state, **extras)

    monkeypatch.setattr(gmc_jax.Checkpoints, "save", crash)
    with pytest.raises(OSError, match="full"):
        run(tmp_path, CONFIG, task)
    monkeypatch.undo()

    _, log = run(tmp_path, CONFIG, task)

    assert measured(log) == measured(uninterrupted[1])


def test_rows_say_what_was_measured(task, uninterrupted):
    params, log = uninterrupted
    _, *evaluations, summary = log.rows
    sent = METHODS["gmc"].bits(CONFIG.compression(1), task.params) / 8

    assert [row["step"] for row in evaluations] == [0, 2, 4, 6]
    assert [row["epoch"] for row in evaluations] == [0, 1 / 20, 2 / 20, 3 / 20]
    assert [row["bytes"] for row in evaluations] == [0, 2 * sent, 4 * sent, 6 * sent]
    costs = [row["relative_cost"] for row in evaluations]
    assert costs == [0, *[pytest.approx(851 / 85_002, rel=1e-6)] * 3]
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    evaluated = task.evaluate(*params)
    assert evaluated == {name: summary[name] for name in evaluated}
    assert summary["bytes_per_step"] == sent
    assert summary["dense_bytes_per_step"] == 4 * 85_002
    assert summary["relative_cost"] == costs[-1]
    assert summary["seconds"] > 0


def test_the_model_is_kept_under_the_names_of_its_parameters(uninterrupted):
    (params, _), log = uninterrupted
    kept = np.load(log.path / "models" / "gmc-0.npz")
    assert len(kept.files) == len(jax.tree.leaves(params))
    for layer, weights in params.items():
        for name, leaf in weights.items():
            np.testing.assert_array_equal(kept[f"0/{layer}/{name}"], leaf)


@pytest.mark.slow
def test_a_crash_before_the_summary_costs_no_step(tmp_path, task, uninterrupted):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, CONFIG, task, stop_after(6))
    (path,) = tmp_path.iterdir()
    whole = (uninterrupted[1].path / record.LOG).read_text().splitlines()

    _, log = run(tmp_path, CONFIG, task)

    assert log.path == path
    assert len(record.read(path)) == len(whole)


@pytest.mark.slow
def test_a_summary_is_written_once(tmp_path, task):
    """Even if the checkpoint is older than the summary."""
    run(tmp_path, CONFIG, task)
    with record.Record(tmp_path / "run-001") as log:
        before = list(log.rows)
        train.train("gmc", [task], [0], CONFIG, log)

        assert log.rows == before


@pytest.mark.slow
def test_several_seeds_have_their_own_rows(tmp_path):
    config = dataclasses.replace(CONFIG, seeds=2, steps=2, evaluations=1)
    several = [tasks.build(config, seed) for seed in (0, 1)]
    with record.begin(tmp_path, "run", dataclasses.asdict(config)) as log:
        models = train.train("gmc", several, [0, 1], config, log)

    kinds = [(row["kind"], row["seed"], row["step"]) for row in log.rows[1:]]
    at = [("evaluation", 0, 0), ("evaluation", 1, 0)]
    at += [("evaluation", 0, 2), ("evaluation", 1, 2)]
    assert kinds == [*at, ("summary", 0, 2), ("summary", 1, 2)]
    for model, task, row in zip(models, several, log.rows[-2:], strict=True):
        assert task.evaluate(*model)["loss"] == row["loss"]
    assert log.finished


@pytest.mark.parametrize("backend", ["distribute", "pmap"])
@pytest.mark.slow
def test_other_backends_agree_and_resume(tmp_path, task, uninterrupted, backend):
    config = dataclasses.replace(CONFIG, backend=backend)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config, task, stop_after(3))

    params, log = run(tmp_path, config, task)

    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(
            ours, theirs, rtol=1e-4, atol=1e-6
        ),
        params,
        uninterrupted[0],
    )
    assert [row["step"] for row in measured(log)] == [0, 2, 4, 6, 6]


GROWING = dataclasses.replace(
    CONFIG, resize=(4, 4), bandwidth="1mbit", latency="10ms", step_time="0.5s"
)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [None, 3, 4, 5])
def test_a_run_goes_on_with_more_workers(tmp_path, task, stop):
    """As by hand: two trainers, and `resize` between them."""
    if stop:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, GROWING, task, stop_after(stop))
    params, log = run(tmp_path, GROWING, task)

    few = Trainer("gmc", [task], CONFIG)
    few.run(0, 4)
    larger = dataclasses.replace(CONFIG, workers=4)
    many = Trainer("gmc", [tasks.build(larger, 0)], larger)
    many.state = gmc_jax.resize(few.state, few.layout, workers=4)
    many.run(4, 6)
    jax.tree.map(np.testing.assert_array_equal, params, many.models()[0])

    assert GROWING.link is not None
    seconds = [
        row["simulated_seconds"] for row in log.rows if row["kind"] == "evaluation"
    ]
    before, after = (
        0.5
        + gmc_jax.link_traffic(
            CONFIG.compression(6).channel(), task.params, workers
        ).seconds(GROWING.link)
        for workers in (2, 4)
    )
    expected = [0, 2 * before, 4 * before, 4 * before + 2 * after]
    np.testing.assert_allclose(seconds, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_run_with_more_workers_may_end_before_its_summary(
    tmp_path, task, monkeypatch
):
    def crash(model, path):
        raise OSError("the disk is full")

    monkeypatch.setattr(train, "_keep", crash)
    with pytest.raises(OSError, match="full"):
        run(tmp_path, GROWING, task)
    monkeypatch.undo()

    _, log = run(tmp_path, GROWING, task)

    assert log.path.name == "run-001"
    assert [row["kind"] for row in log.rows].count("summary") == 1


def test_workers_cannot_change_after_the_last_step(tmp_path, task):
    late = dataclasses.replace(GROWING, resize=(6, 4))
    with pytest.raises(ValueError, match=r"before the last step, 6, got step 6"):
        run(tmp_path, late, task)
