"""Records: numbered, resumed, never overwritten."""

import errno
import itertools
import json
import math
from pathlib import Path

import pytest

from experiments.training import record
from gmc_jax.checkpoints import manifest

CONFIG = {"methods": ("a", "b"), "workers": 2, "seed": 3, "seeds": 2}


def finish(log):
    for method, seed in itertools.product(CONFIG["methods"], (3, 4)):
        log.append(kind="summary", method=method, seed=seed, step=3)


def evaluate(log, method, *steps, seed=3):
    for step in steps:
        log.append(kind="evaluation", method=method, seed=seed, step=step)


def steps(rows, method):
    return [row["step"] for row in rows if row.get("method") == method]


def test_the_first_line_says_what_and_where_from(tmp_path):
    with record.begin(tmp_path, "run", CONFIG, extra=[1]) as log:
        path = log.path

    header = json.loads((path / record.LOG).read_text().splitlines()[0])
    assert header["kind"] == "header"
    assert header["name"] == "run"
    assert header["config"] == CONFIG | {"methods": ["a", "b"]}
    assert header["environment"].keys() >= {"python", "jax", "gmc_jax", "commit"}
    assert header["extra"] == [1]


def test_rows_are_on_disk_as_soon_as_they_are_appended(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as log:
        evaluate(log, "a", 0)

        assert record.read(log.path) == log.rows


def test_a_finished_run_is_never_touched_again(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as first:
        finish(first)
    before = (first.path / record.LOG).read_bytes()

    with record.begin(tmp_path, "run", CONFIG) as second:
        finish(second)

    assert (first.path.name, second.path.name) == ("run-001", "run-002")
    assert (first.path / record.LOG).read_bytes() == before


def test_an_unfinished_run_of_the_same_configuration_continues(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as first:
        first.append(kind="summary", method="a", seed=3, step=3)

    with record.begin(tmp_path, "run", CONFIG) as second:
        assert second.path == first.path
        assert second.rows == first.rows
        assert second.trained == {("a", 3)}
        assert not second.finished


def test_another_configuration_starts_anew(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as first:
        pass
    with record.begin(tmp_path, "run", CONFIG | {"workers": 3}) as second:
        assert second.path != first.path


def test_two_writers_do_not_share_a_run(tmp_path):
    with (
        record.begin(tmp_path, "run", CONFIG) as first,
        record.begin(tmp_path, "run", CONFIG) as second,
    ):
        assert second.path != first.path


def test_a_directory_without_a_log_is_left_alone(tmp_path):
    (tmp_path / "run-001").mkdir()

    with record.begin(tmp_path, "run", CONFIG) as log:
        assert log.path.name == "run-002"


def test_half_a_line_is_dropped(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as log:
        evaluate(log, "a", 0)
    with (log.path / record.LOG).open("a") as file:
        file.write('{"kind": "evalu')

    with record.begin(tmp_path, "run", CONFIG) as again:
        evaluate(again, "a", 1)

    assert steps(record.read(log.path), "a") == [0, 1]


@pytest.mark.parametrize(
    "broken", [b'{"kind": "eval\n', b"\0\0\0\0\n", b"\xff\n", b"42\n", b'{"step": 1}\n']
)
def test_a_broken_last_line_is_dropped_with_a_remark(broken, tmp_path, capsys):
    """A kill, or a crash of the machine, cuts the last row short."""
    with record.begin(tmp_path, "run", CONFIG) as log:
        evaluate(log, "a", 0)
    with (log.path / record.LOG).open("ab") as file:
        file.write(broken)

    assert steps(record.read(log.path), "a") == [0]
    assert (
        f"The last line of {log.path / record.LOG} was cut" in capsys.readouterr().err
    )
    with record.begin(tmp_path, "run", CONFIG) as again:
        evaluate(again, "a", 1)
    capsys.readouterr()
    assert steps(record.read(log.path), "a") == [0, 1]
    assert not capsys.readouterr().err


def test_another_broken_line_is_named_and_stops_no_other_run(tmp_path):
    """One broken log stopped all runs of its name with an error of JSON."""
    with record.begin(tmp_path, "run", CONFIG) as first:
        evaluate(first, "a", 0, 1)
    log = first.path / record.LOG
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"{broken\n", lines[2]]))
    before = log.read_bytes()

    with record.begin(tmp_path, "run", CONFIG | {"workers": 9}) as other:
        assert other.path.name == "run-002"
    assert record.latest(tmp_path).name == "run-002"
    for use in (
        lambda: record.begin(tmp_path, "run", CONFIG),
        lambda: record.read(first.path),
    ):
        with pytest.raises(ValueError, match=r"line 2 of .*001/log\.jsonl is broken"):
            use()
    assert log.read_bytes() == before


@pytest.mark.parametrize("first", [b"{broken\n", b"\xff\xfe\n", b"[]\n", None])
def test_a_log_whose_first_line_is_unreadable_is_left_out(first, tmp_path, capsys):
    """It belongs to no run, even if only permissions are missing."""
    log = tmp_path / "run-001" / record.LOG
    log.parent.mkdir()
    log.mkdir() if first is None else log.write_bytes(first)

    with record.begin(tmp_path, "run", CONFIG) as new:
        assert new.path.name == "run-002"
    assert (
        f"Left out, since its first line cannot be read: {log}"
        in capsys.readouterr().err
    )


def test_a_finished_log_that_is_read_only_stops_no_other_run(tmp_path, monkeypatch):
    with record.begin(tmp_path, "run", CONFIG) as first:
        finish(first)
    opened = Path.open

    def read_only(path, mode="r", *rest, **more):
        if path == first.path / record.LOG and not mode.startswith("r"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", read_only)
    with record.begin(tmp_path, "run", CONFIG) as second:
        assert second.path.name == "run-002"


def test_a_row_that_does_not_fit_on_the_disk_names_the_log(tmp_path):
    """The rows before it stay, to continue from."""
    log = record.begin(tmp_path, "run", CONFIG)
    evaluate(log, "a", 0)
    with (
        log._file,
        Path("/dev/full").open("w") as log._file,
        pytest.raises(OSError, match=r"No space left.*run-001/log\.jsonl"),
        log,
    ):
        evaluate(log, "a", 1)
    assert steps(log.rows, "a") == steps(record.read(log.path), "a") == [0]


def test_rewinding_removes_later_rows_of_one_method(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as log:
        evaluate(log, "a", 0, 1, 2)
        evaluate(log, "b", 0, 1, 2)
        log.rewind("b", (3,), 0)
        evaluate(log, "b", 5)

        assert steps(log.rows, "a") == [0, 1, 2]
        assert steps(log.rows, "b") == [0, 5]
        assert record.read(log.path) == log.rows


def test_rewinding_leaves_other_seeds_alone(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as log:
        evaluate(log, "a", 0, 1)
        evaluate(log, "a", 0, 1, seed=4)
        log.rewind("a", (4,), 0)

        assert [(row["seed"], row["step"]) for row in log.rows[1:]] == [
            (3, 0),
            (3, 1),
            (4, 0),
        ]


def test_a_run_is_finished_with_every_method_and_every_seed(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as log:
        for method, seed in [("a", 3), ("a", 4), ("b", 3)]:
            log.append(kind="summary", method=method, seed=seed, step=3)
        assert not log.finished
        log.append(kind="summary", method="b", seed=4, step=3)
        assert log.finished


def test_a_created_record_is_never_an_old_one(tmp_path):
    with record.create(tmp_path, "run", CONFIG) as first:
        pass
    with record.create(tmp_path, "run", CONFIG) as second:
        assert second.path != first.path


def test_a_path_in_a_configuration_is_kept_as_a_string(tmp_path):
    config = CONFIG | {"data_file": tmp_path}
    with record.begin(tmp_path, "run", config) as first:
        pass
    with record.begin(tmp_path, "run", config) as second:
        assert second.path == first.path
        assert second.rows[0]["config"]["data_file"] == str(tmp_path)


def test_resuming_elsewhere_is_recorded_and_survives_rewinding(tmp_path, monkeypatch):
    with record.begin(tmp_path, "run", CONFIG) as log:
        evaluate(log, "a", 0, 1)
    elsewhere = {"jax": "1.0", "commit": None}
    monkeypatch.setattr(record, "environment", lambda: elsewhere)

    with record.begin(tmp_path, "run", CONFIG) as again:
        again.rewind("a", (3, 4), 0)

    kinds = [row["kind"] for row in record.read(log.path)]
    assert kinds == ["header", "evaluation", "resumed"]
    assert again.rows[-1]["environment"] == elsewhere


def test_the_latest_run_is_the_one_written_last(tmp_path):
    with record.begin(tmp_path, "zebra", CONFIG):
        pass
    with record.begin(tmp_path, "ant", CONFIG) as log:
        evaluate(log, "a", 0)

    assert record.latest(tmp_path) == log.path


def test_no_results_are_an_error_that_says_how_to_get_some(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no results in .*`python -m"):
        record.latest(tmp_path)


def test_a_finished_log_is_not_even_opened_for_writing(tmp_path):
    """Not even if its JSON is spaced differently."""
    with record.begin(tmp_path, "run", CONFIG) as first:
        finish(first)
    log = first.path / record.LOG
    rows = map(json.loads, log.read_text().splitlines())
    lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
    log.write_text("".join(lines))
    before, written = log.read_bytes(), log.stat().st_mtime_ns

    with record.begin(tmp_path, "run", CONFIG):
        pass

    assert (log.read_bytes(), log.stat().st_mtime_ns) == (before, written)


def test_an_unfinished_log_of_another_spacing_continues(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as first:
        evaluate(first, "a", 0, 1)
    log = first.path / record.LOG
    rows = map(json.loads, log.read_text().splitlines())
    log.write_text("".join(json.dumps(row, indent=None) + "  \n" for row in rows))

    with record.begin(tmp_path, "run", CONFIG) as again:
        again.rewind("a", (3,), 0)
        evaluate(again, "a", 7)

    assert steps(record.read(first.path), "a") == [0, 7]


def test_infinite_numbers_are_null_on_disk_and_nan_in_memory(tmp_path):
    with record.begin(tmp_path, "run", CONFIG | {"steps": None}) as log:
        log.append(kind="evaluation", method="a", seed=3, step=1, loss=float("inf"))

    written = (log.path / record.LOG).read_text()
    assert json.loads(written.splitlines()[1])["loss"] is None
    header, row = record.read(log.path)
    assert header["config"]["steps"] is None
    assert math.isnan(row["loss"])


def test_a_directory_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in .*such as results/digits"):
        record.read(tmp_path)


def test_the_latest_run_has_rows(tmp_path):
    with record.begin(tmp_path, "run", CONFIG) as log:
        pass
    empty = tmp_path / "run-002"
    empty.mkdir()
    (empty / record.LOG).touch()

    assert record.latest(tmp_path) == log.path


def test_results_must_be_a_directory_that_can_be_made(tmp_path):
    record.prepare(tmp_path / "new" / "results")
    assert (tmp_path / "new" / "results").is_dir()
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "results"):
        with pytest.raises(ValueError, match=r"`results` is .* cannot be made"):
            record.prepare(path)


def test_the_newest_complete_checkpoint_of_each_method_is_named(tmp_path, monkeypatch):
    """`launch run` printed that nothing was kept, and `run` always that it goes on."""
    complete = {"gmc-0": [10, 2], "sgp-0": [], "slowmo-0": [4]}
    monkeypatch.setattr(
        manifest, "complete_steps", lambda folder: complete[folder.name]
    )
    with record.create(tmp_path, "run", {}) as log:
        assert record.describe(log.path) == ""
        (log.path / record.CHECKPOINTS / "sgp-0").mkdir(parents=True)
        log.append(kind="evaluation", method="gmc", seed=0, step=0)
        assert record.describe(log.path) == ""
        for method in complete:
            (log.path / record.CHECKPOINTS / method).mkdir(exist_ok=True)
        words = record.describe(log.path)
    kept = f"kept in {log.path}: gmc-0 at step 10, slowmo-0 at step 4."
    assert words == f"{kept} The same command goes on there."


def test_a_study_keeps_its_rows(tmp_path):
    with record.create(tmp_path, "run", {}) as log:
        log.append(kind="measurement", rate=1.0)
        assert (
            record.describe(log.path) == f"kept in {log.path}: the rows of log.jsonl."
        )


def test_nothing_is_kept_where_there_is_no_record(tmp_path):
    assert record.describe(tmp_path / "nowhere") == ""
