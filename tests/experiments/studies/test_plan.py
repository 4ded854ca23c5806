"""The command `plan`: its tables, its conclusions, its log and its figure."""

import json
import math

import numpy as np
import pytest

import gmc_jax
from experiments.__main__ import main
from experiments.studies.plan import figures, tables
from experiments.studies.plan.study import Plan
from experiments.studies.plan.tables import verdict
from experiments.training import record
from gmc_jax.costs.compression_cost import CPU_2_CORES, FREE
from gmc_jax.costs.planning import Prediction

pytestmark = pytest.mark.usefixtures("quick_figure")

OPTIONS = (
    *("--parameters", "1e6", "--workers", "1100", "--bandwidth", "100mbit"),
    *("--latency", "1ms", "--step-time", "100ms", "--ratios", "0.001"),
)


def test_the_command_prints_which_methods_pay(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main(["plan", *OPTIONS, "--results", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())

    assert "1,000,000 parameters, 1100 workers, 100mbit with 1ms, 100ms of" in shown
    assert "predicts the time of a step, not the accuracy after it" in shown
    assert "Losses are not ranked: " in shown
    assert (
        "gmc_jax.gmc_plus(rate, gmc_jax.all_reduce(gmc_jax.random_block(0.001))"
        in shown
    )
    assert "useless: sends more than dense; pays up to 0.0" in shown
    assert "Fastest: CoCoD-SGD every 48, " in shown
    assert "Fastest that synchronises at every step: GMC, random_block" in shown
    assert "Break even: GMC, top_k pays up to a ratio of 0.0" in shown

    path = tmp_path / "plan" / "run-001"
    assert (path / "figure.png").read_bytes().startswith(b"\x89PNG")
    rows = {row["method"]: row for row in record.read(path)[1:]}
    dense = 0.1 + 2 * 1099 * (1e-3 + 4e6 / 1100 / 12.5e6)
    assert rows["dense all-reduce"]["seconds"] == pytest.approx(dense)
    assert rows["local SGD, SlowMo every 12"]["faster_between"] == [0, None]
    assert rows["GMC, top_k"]["faster_between"] is None
    assert rows["GMC, top_k"]["speed_up"] < 1
    assert rows["GMC, top_k"]["encoding"] > 0
    header = json.loads((path / record.LOG).read_text().splitlines()[0])
    assert header["config"]["bandwidth"] == "100mbit"


@pytest.mark.slow
def test_with_steps_the_command_separates_what_is_safe(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    link = ("--parameters", "79e3", "--workers", "4", "--bandwidth", "100mbit")
    training = ("--steps", "300", "--optimizer", "adam", "--ratios", "0.001")
    main(["plan", *link, *training, "--results", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    heads = [shown.index(f"{head} in 300 steps") for head in tables.HEADS.values()]
    assert heads == sorted(heads)
    assert "never meeting" in shown[heads[2] :]
    assert "First of the safe: " in shown
    assert "Losses are not ranked" not in shown
    rows = record.read(tmp_path / "plan" / "run-001")[1:]
    verdicts = {row["method"]: row["worth"]["verdict"] for row in rows}
    assert verdicts["dense all-reduce"] == rows[0]["worth"]["verdict"] == "safe"
    for row in rows:
        said = row["expression"] in shown
        pays = row["speed_up"] > 1 or row["method"] == "dense all-reduce"
        assert said == (pays and row["worth"]["verdict"] != "as never meeting")


@pytest.mark.slow
def test_measured_costs_replace_the_default_ones(tmp_path, monkeypatch, capsys):
    free = {name: {1.0: FREE} for name in CPU_2_CORES}
    monkeypatch.setattr(gmc_jax, "measure_encodings", lambda: free)
    few = ("--workers", "1", "--periods", "12")
    main(["plan", "--measure", *few, "--results", str(tmp_path)])
    _, measured, *rows = record.read(tmp_path / "plan" / "run-001")
    assert measured["measured"]["top_k"] == {"1.0": [0, 0]}
    assert {row["encoding"] for row in rows} == {0}
    assert {row["seconds"] for row in rows} == {0.5}
    shown = " ".join(capsys.readouterr().out.split())
    assert "Nothing is faster than the dense all-reduce" in shown
    assert "GMC, top_k never pays; at 10 % on no link" in shown


def row(name: str, seconds: float, size: float, ratio: float | None) -> Prediction:
    traffic = gmc_jax.Traffic(size, 1)
    return Prediction(
        *(name, None, traffic, 1, 0, seconds - 1, seconds, 0, 2 / seconds, None),
        *(ratio, 0, size),
    )


def test_verdicts():
    dense = row("dense all-reduce", 2, 10, None)
    assert verdict(dense, dense) == ""
    assert verdict(row("fast", 1, 20, 0.5), dense) == "2 times faster"
    useless = verdict(row("large", 4, 20, 0.25), dense)
    assert useless == "useless: sends more than dense; pays up to 25 %"
    assert verdict(row("slow", 4, 5, 0.0), dense).startswith("slower: encoding and")


def test_large_numbers_are_short():
    numbers = (0.0249, 5.5, 999, 1000, 11_994, 1_289_743, 6.6e10)
    assert [tables._short(number) for number in numbers] == [
        *("0.0249", "5.5", "999", "1k", "12k", "1.29M", "66G")
    ]


def test_links_in_words():
    assert tables._links(None) == "no link"
    assert tables._links((0, math.inf)) == "any link"
    assert tables._links((5e5, math.inf)) == "links from 4 mbit"
    assert tables._links((0, 125e6)) == "links up to 1 gbit"
    assert tables._links((0, 100)) == "links up to 0.8 kbit"


def test_the_figure_has_a_line_for_every_method_in_both_panels():
    """And one for the link in question."""
    figure = figures.draw(10**6, 64, Plan().link, 0.5, CPU_2_CORES, "title")
    for panel in figure.axes:
        assert len(panel.lines) == len(figures.LOOKS) + 1
    dense, top_k, _ = figure.axes[1].lines
    seconds = 0.5 + 2 * 3 * (0.02 + 1e6 / 125e6)
    assert np.asarray(dense.get_ydata())[1] == pytest.approx(seconds)
    assert top_k.get_label() == "GMC, top_k, 0.1 %"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bandwidth", "fast"], "'fast' is not a rate such as 100mbit"),
        (["--latency", "1 minute"], "is not a time such as 20ms"),
        (["--parameters", "many"], "is not a number such as 1e9"),
        (["--step-time", "0s"], "`step_time`"),
        (["--workers", "0"], "`workers`"),
        (["--steps", "0"], "`steps`"),
        (["--workers", str(10**20)], "from 1 to 1e+18, got"),
        (["--parameters", "1e30"], "from 1 to 1e+18, got '1e30'"),
    ],
)
def test_errors_are_reported_at_once(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", *options, "--results", str(tmp_path)])
    # Newer versions of tyro print what a dataclass raises, older ones leave it to us.
    shown = f"{capsys.readouterr().err}{ended.value}".replace("│", " ")
    assert message in " ".join(shown.split())
    assert not list(tmp_path.iterdir())


def test_a_ratio_out_of_range_needs_no_traceback(tmp_path):
    with pytest.raises(SystemExit, match="`ratios` "):
        main(["plan", "--ratios", "2", "--results", str(tmp_path)])


@pytest.mark.slow
def test_a_link_that_is_too_slow_is_an_error(tmp_path):
    slow = ("--bandwidth", "1e-300", "--parameters", "10", "--workers", "2")
    none = ("--ratios", "1", "--periods", "2")
    with pytest.raises(SystemExit, match=r"take .*e\+30\d seconds on 1e-300 with 20ms"):
        main(["plan", *slow, *none, "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
