"""What is said to be kept is looked at."""

from experiments.training import record, remains
from gmc_jax.checkpoints import manifest


def test_the_newest_whole_checkpoint_of_each_method_is_named(tmp_path, monkeypatch):
    """`launch run` said that nothing was kept, and `run` always that it goes on."""
    whole = {"gmc-0": [10, 2], "sgp-0": [], "slowmo-0": [4]}
    monkeypatch.setattr(manifest, "complete_steps", lambda folder: whole[folder.name])
    with record.create(tmp_path, "run", {}) as log:
        assert remains.words(log.path) == ""
        (log.path / record.CHECKPOINTS / "sgp-0").mkdir(parents=True)
        log.append(kind="evaluation", method="gmc", seed=0, step=0)
        assert remains.words(log.path) == ""
        for method in whole:
            (log.path / record.CHECKPOINTS / method).mkdir(exist_ok=True)
        words = remains.words(log.path)
    kept = f"kept in {log.path}: gmc-0 at step 10, slowmo-0 at step 4."
    assert words == f"{kept} The same command goes on there."


def test_of_a_study_rows_are_kept(tmp_path):
    with record.create(tmp_path, "run", {}) as log:
        log.append(kind="measurement", rate=1.0)
        assert remains.words(log.path) == f"kept in {log.path}: the rows of log.jsonl."


def test_nothing_is_kept_where_there_is_nothing(tmp_path):
    assert remains.words(tmp_path / "nowhere") == ""
