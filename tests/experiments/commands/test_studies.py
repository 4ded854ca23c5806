"""The logs of all studies are found, printed and drawn."""

import contextlib
import json
import os
import shutil

import pytest
from rich.console import Console
from rich.table import Table

from experiments.__main__ import main
from experiments.commands import _studies
from experiments.paper.tables import KEPT
from experiments.training import record

pytestmark = pytest.mark.usefixtures("quick_figure")

HEADER = {
    "kind": "header",
    "name": "run",
    "config": {
        **{"learning_rate": 0.005, "momentum": 0.9, "methods": ["dmsgd", "gmc"]},
        **{"steps": 20, "repeats": 3},
    },
}
QUADRATIC = [
    HEADER,
    *(
        {
            "kind": "summary",
            "problem": problem,
            "method": method,
            "tail_mean": 0.5,
            "distances": [9.0, 1.0, 0.5],
            **({"path": [[20.0, 15.0], [1.0, 1.0]]} if problem[4] == "2" else {}),
        }
        for problem in ("d = 2, s = 1", "d = 20, s = 5")
        for method in ("dmsgd", "gmc")
    ),
]
BENCH = [
    HEADER,
    {"kind": "summary", "method": "u + g", "milliseconds": 2.0},
    {"kind": "summary", "method": "top_k", "milliseconds": 5.0},
    {
        **{"kind": "bar", "ratio": "top_k / u + g", "measured": 2.5},
        **{"required": "at most 5", "met": True},
    },
]
METHODS = [
    HEADER | {"steps": 20, "class_counts": [[1]]},
    {
        **{"kind": "line", "label": "SVRG", "accuracies": [0.5], "bytes_per_step": 8.0},
        **{"own": 0.0, "shared": 5.0, "gradient_at": "w"},
    },
]
METHODS[0]["config"] = HEADER["config"] | {"data": "digits"}


def written(path, rows):
    path.mkdir()
    lines = (json.dumps(row) + "\n" for row in rows)
    (path / record.LOG).write_text("".join(lines))
    return path


def printed(study, rows, width=80):
    console = Console(width=width)
    with console.capture() as capture:
        for shown in study.tables(rows):
            console.print(shown, markup=False, highlight=False)
    return capture.get()


def title(figure):
    (legend,) = figure.legends or [None]
    above = legend.get_title().get_text() if legend else ""
    return " ".join((figure.get_suptitle() or above).split())


@pytest.mark.parametrize(
    ("name", "words", "of"),
    [
        ("clocks", "AD-PSGD", "perceptron on digits, 8 workers, links of 1 gbit with"),
        ("elastic", "DGC, masked", "mlp on digits, 8 workers up to step 200"),
        (
            "equal_bytes",
            "DeMo 1.9e-5* 1.9e-5* 0.0191 2.5221* 2.5221* 2.6602*",
            "equal_bytes: 8 workers, mean and range of 3 seeds",
        ),
        ("network", "4 hosts, links: 10mbit", "mlp_10m on digits, 4 hosts"),
        ("pca", "Katyusha X^s", "1,024 samples, 16 unknowns, 8 workers"),
        ("plan", "Does not pay: GMC, top_k at 10 %", "64 workers, 1gbit with 20ms"),
        ("theory", "Lemmas 4, 9", "K = 8 workers and T = 16000 steps"),
        ("votes", "3 10.8% 83.9%", "votes on 20,000 entries, 3 times as much noise"),
        (
            "methods",
            "gradient tracking",
            "methods: mlp on digits, 8 workers, 200 steps",
        ),
        ("d2_digits", "D-PSGD 0.1 96.58%", "d2_digits: mlp on digits, 8 workers, 300"),
    ],
)
def test_a_kept_log_is_printed_in_80_columns_and_drawn(name, words, of):
    """`table` and `plot` could read the rows of runs only."""
    study, rows = _studies.read(KEPT / name)
    shown = printed(study, rows)
    assert words in " ".join(shown.split())
    assert "…" not in shown
    (figure,) = study.figures(rows).values()
    assert of in title(figure)


def test_the_kept_log_under_adam_is_printed_in_80_columns():
    study, rows = _studies.read(KEPT / "adam")
    shown = printed(study, rows)
    assert "Adam, dense 100% 100% 0.003 2.412 ±0.010 2.324" in " ".join(shown.split())
    assert "…" not in shown


@pytest.mark.parametrize(
    ("rows", "words", "figures"),
    [
        (QUADRATIC, "GMC", {"paths", "distances"}),
        (BENCH, "top_k / u + g 2.50 at most 5 yes", set()),
        (METHODS, "SVRG 50.00% 8 0 5 w", None),
    ],
)
def test_a_log_of_a_study_without_kept_results_is_shown(rows, words, figures, tmp_path):
    study, rows = _studies.read(written(tmp_path / "run", rows))
    assert words in " ".join(printed(study, rows).replace("│", " ").split())
    if figures is not None:
        drawn = study.figures(rows)
        assert drawn.keys() == figures
        assert all("learning rate 0.005" in title(each) for each in drawn.values())


def test_a_plan_in_80_columns_is_a_line_a_row():
    """A row of the plan took five lines."""
    study, rows = _studies.read(KEPT / "plan")
    tables = [shown for shown in study.tables(rows) if isinstance(shown, Table)]
    _, aggressive, never, times, link = tables
    assert never.row_count == 1
    for shown in (aggressive, times, link):
        console = Console(width=80)
        with console.capture() as capture:
            console.print(shown)
        assert capture.get().count("local, GMC of random_block every 12") == 3


def test_a_goal_that_is_not_reached_is_explained():
    study, rows = _studies.read(KEPT / "clocks")
    assert "inf" not in printed(study, rows)
    header = rows[0] | {"config": rows[0]["config"] | {"goal": 1e-9}}
    assert (
        "inf: a loss of 1e-09 was not reached within 250 gradients of each worker. Use"
        in " ".join(printed(study, [header, *rows[1:]]).split())
    )


def test_losses_that_are_not_finite_are_recorded_as_none(tmp_path):
    with record.create(tmp_path, "run", {"slowdowns": [1.0]}) as log:
        log.append(kind="curve", losses=[1.0, float("nan")], inner={"a": float("inf")})
    assert record.read(log.path)[1]["losses"] == [1.0, None]
    assert record.read(log.path)[1]["inner"] == {"a": None}


@pytest.mark.parametrize(
    "name",
    [
        *("adam", "choices", "clocks", "elastic", "equal_bytes", "network", "pca"),
        "plan",
        *("theory", "votes"),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_an_interrupted_study_is_shown_or_an_error(name, share):
    """Tables indexed rows that are not there yet."""
    study, rows = _studies.read(KEPT / name)
    first = rows[: 2 + int(share * len(rows))]
    for show in (lambda: printed(study, first), lambda: study.figures(first)):
        with contextlib.suppress(ValueError):
            show()


@pytest.mark.parametrize("command", ["table", "plot"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "nothing was measured yet in .*"),
        ([HEADER], "nothing was measured yet in .*"),
        (
            [HEADER, {"kind": "song"}],
            "rows of kind header, song; .* are line with own, header with",
        ),
        (
            [HEADER, {"kind": "curve", "slowdown": 1.0}],
            "log.jsonl has no 'goal'|log.jsonl has no 'method'",
        ),
        ([HEADER | {"class_counts": [[1]]}], "no 'model'|nothing to draw yet"),
        ([{"kind": "measurement", "rate": "1mbit"}], "has no 'config'"),
    ],
)
def test_an_unknown_log_is_an_error_in_one_line(command, rows, message, tmp_path):
    """Logs of other versions or programs, or without rows, raised KeyError."""
    path = written(tmp_path / "run [red]", rows)
    with pytest.raises(SystemExit, match=message):
        main([command, str(path)])
    assert [file.name for file in path.iterdir()] == [record.LOG]


@pytest.mark.parametrize("command", ["table", "plot"])
def test_a_directory_of_runs_names_some_of_them(command, tmp_path):
    written(tmp_path / "run-001", [HEADER])
    with pytest.raises(SystemExit, match=r"Name a directory below it, such as .*-001"):
        main([command, str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"no run in .*file: it has no file"):
        main([command, str(tmp_path / "file")])


def test_the_latest_record_can_be_of_any_study(tmp_path, capsys):
    """Studies are a level deeper than runs; a broken log beside them is left out."""
    (tmp_path / "clocks").mkdir()
    shutil.copytree(KEPT / "votes", tmp_path / "votes" / "run-001")
    broken = written(tmp_path / "run-001", [])
    (broken / record.LOG).write_text("{broken\n")
    later = (tmp_path / "votes" / "run-001" / record.LOG).stat().st_mtime + 10
    os.utime(broken / record.LOG, (later, later))
    main(["table", "--results", str(tmp_path)])
    shown, said = capsys.readouterr()
    assert "faulty" in shown
    assert f"Left out, since its first line cannot be read: {broken}" in said


def test_a_study_without_a_figure_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="have no figure; use `table"):
        main(["plot", str(written(tmp_path / "run", BENCH))])


def test_several_figures_have_different_names(tmp_path, capsys):
    path = written(tmp_path / "run[a]", QUADRATIC)
    main(["plot", str(path), "--output", str(tmp_path / "my.svg")])
    assert {file.name for file in tmp_path.glob("*.svg")} == {
        "my-paths.svg",
        "my-distances.svg",
    }
    assert f"drew {tmp_path}/my-distances.svg" in capsys.readouterr().out
