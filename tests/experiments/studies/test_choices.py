"""The study of what the planner chooses: which methods, and its table."""

import jax.numpy as jnp
import pytest
from rich.table import Table

import gmc_jax
from experiments.studies.choices import study
from experiments.studies.choices.study import Choices
from experiments.training import record
from gmc_jax.costs import planning
from gmc_jax.costs.candidates import never_meeting
from gmc_jax.costs.patterns import DENSE, Pattern, Sync

LINK = gmc_jax.Link(latency=0.02, bandwidth=12.5e6)


def predicted(*patterns: Pattern) -> list[planning.Prediction]:
    return [
        planning.predict(pattern, 1000, 4, LINK, 0.2, steps=300) for pattern in patterns
    ]


def local(period: int) -> Pattern:
    return Pattern(f"local {period}", (Sync(gmc_jax.exact(), period=period),))


def test_the_first_of_each_verdict_are_trained_and_the_baselines(tmp_path):
    options = Choices(tmp_path, each=2)
    rows = predicted(
        *map(local, (2, 3, 4, 12, 30, 48)), DENSE, never_meeting(300, "adam")
    )
    assert [row.name for row in options.chosen(rows)] == [
        *("dense all-reduce", "never meeting"),
        *("local 2", "local 3", "local 12", "local 30"),
    ]


def logged(method: str, verdict: str, seconds: float, loss: float | None, rate=0.1):
    return {
        **{"kind": "choice", "method": method, "ratio": None, "rate": rate},
        **{"loss": loss, "seconds": seconds, "verdict": verdict, "lag": 3.0},
        "steps": 300,
    }


def test_the_table_has_the_best_rate_and_says_how_far_the_worst_is():
    config = {"steps": 300, "optimizer": "adam", "workers": 4}
    rows = [
        {"kind": "header", "config": config | {"bandwidth": "b", "latency": "l"}},
        logged("never meeting", "as never meeting", 1.0, 2.6),
        logged("dense all-reduce", "safe", 9.0, 2.5, 0.3),
        logged("dense all-reduce", "safe", 9.0, 2.4),
        logged("dense all-reduce", "safe", 9.0, None, 0.9),
        logged("quick", "safe", 3.0, 2.45),
        logged("fast", "aggressive", 2.0, 3.0),
    ]
    assert [row["loss"] for row in study.best(rows)] == [2.45, 2.4, 3.0, 2.6]
    shown, worst, first = study.tables(rows)
    assert isinstance(shown, Table)
    assert worst == "Of what is safe, the worst ends 0.050 above dense."
    assert (
        first
        == "The first choice, quick, ends 2.450; never meeting 2.600, dense 2.400."
    )
    assert list(shown.columns[5].cells) == [
        *("", "+0.050", "+0.000", "", "+0.600", "", "+0.200")
    ]


@pytest.mark.slow
def test_what_the_planner_prints_is_trained(tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("to be, or not to be: that is the question\n" * 400)
    options = Choices(text, steps=2, batch_size=1, results=tmp_path / "results")
    monkeypatch.setattr(
        study, "best_rates", lambda loss, rate: [rate][: 1 + (loss(rate) < 0)]
    )
    monkeypatch.setattr(
        Choices, "plan", lambda self, size: predicted(DENSE, never_meeting(300, "adam"))
    )
    study.main(options)
    (path,) = (tmp_path / "results").iterdir()
    names = ["dense all-reduce", "never meeting"]
    rows = record.read(path)
    trained = [row for row in rows if row["kind"] == "choice"]
    assert [row["method"] for row in trained] == names
    assert all(1 < row["loss"] < 10 for row in trained)
    assert [row["method"] for row in rows if row["kind"] == "summary"] == names
    shown = capsys.readouterr().out
    assert "Of what is safe, the worst ends 0.000 above dense." in shown


def test_an_expression_becomes_a_method():
    tx = study.evaluated("optax.chain(optax.sgd(rate), optax.scale(2.0))", 0.5)
    one = jnp.ones(())
    assert float(jnp.asarray(tx.update(one, tx.init(one))[0])) == -1.0
