"""Tests of the comparison under Adam."""

import io
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import gmc_jax
from experiments.studies.adam import dense_variance, study, table
from experiments.studies.adam.candidates import CANDIDATES
from experiments.studies.adam.study import Adam
from experiments.training import record
from gmc_jax.costs.sent_per_step import bits_of_steps
from tests.support import harness, problems

PARAMS = {"first": {"w": jnp.zeros((64, 64))}, "second": {"b": jnp.zeros(64)}}


def options(**others) -> Adam:
    return Adam(text_file=Path("text"), **others)


def test_all_workers_train_what_is_compared_and_the_first_the_rest():
    lines = options(methods=("diloco", "adam", "two_bits")).lines
    assert [(line.method, line.ratio, line.period, line.workers) for line in lines] == [
        *(("adam", 1.0, 1, 4), ("two_bits", 0.1, 1, 4), ("two_bits", 0.01, 1, 4)),
        *(("two_bits", 0.001, 1, 4), ("adam", 1.0, 1, 8), ("two_bits", 0.1, 1, 8)),
        *(("two_bits", 0.01, 1, 8), ("two_bits", 0.001, 1, 8)),
        *(("diloco", 1.0, 12, 4), ("diloco", 1.0, 30, 4), ("diloco", 1.0, 48, 4)),
    ]
    names = [line.name for line in options().lines]
    assert len(set(names)) == len(names)
    (never,) = options(methods=("never",), workers=(4,), steps=7).lines
    assert never.period == 7


def share(method: str, ratio: float, period: int, steps: int = 48) -> float:
    line = study.Line(method, ratio, period, 2)
    tx = optax.with_extra_args_support(line.optimizer(0.1, steps))
    sent = bits_of_steps(tx, PARAMS, steps, "workers", {})
    return float(sent.mean()) / (32 * (64 * 64 + 64))


@pytest.mark.parametrize(
    ("method", "ratio", "period", "expected"),
    [
        ("adam", 1.0, 1, 1.0),
        ("never", 1.0, 48, 1 / 48),
        ("in_front", 0.01, 1, 0.02),
        ("detached", 0.01, 1, 0.02),
        ("diloco", 1.0, 12, 1 / 12),
        ("blocks", 0.01, 1, 0.01),
        ("blocks_adam", 0.01, 12, 0.01 / 12),
    ],
)
@pytest.mark.slow
def test_a_candidate_sends_what_its_ratio_says(method, ratio, period, expected):
    np.testing.assert_allclose(share(method, ratio, period), expected, rtol=0.05)


@pytest.mark.slow
def test_two_bits_send_more_entries_in_fewer_bytes():
    assert 0.008 < share("two_bits", 0.01, 1, steps=2) < 0.015


def row(**others) -> record.Row:
    shared = {"kind": table.KIND, "method": "adam", "ratio": 1.0, "period": 1}
    shared |= {"workers": 4, "seed": 0, "rate": 0.1, "loss": 2.0}
    return shared | {"bytes": 50.0, "dense_bytes": 100.0} | others


def test_the_table_shows_the_best_rate_of_the_first_seed():
    settings = {"workers": [4, 8], "seeds": 2, "rates_apart": 2.0}
    header = {"kind": "header", "config": settings | {"problem": {"steps": 3}}}
    rows = [
        header,
        *(row(rate=0.2, loss=3.0), row(), row(seed=1, loss=2.5)),
        *(row(workers=8, loss=None), row(method="gone", loss=4.0)),
    ]
    assert table.reached(rows)["adam", 1.0, 1, 4] == (0.1, [2.0, 2.5], 0.5)
    console = Console(width=80, record=True, file=io.StringIO())
    (shown,) = table.tables(rows)
    console.print(shown)
    shown = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "Adam, dense 100% 50% 0.1 2.250 ±0.250 diverges" in shown
    assert "gone 100% 50% 0.1 4.000" in shown


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in_front", "behind"])
def test_without_loss_the_dense_variance_makes_it_adam(place):
    problem = problems.quadratics(3, steps=9, d=20)
    ours = getattr(dense_variance, place)(gmc_jax.exact(), 0.1)
    adam = optax.chain(gmc_jax.averaged(gmc_jax.exact()), optax.adam(0.1))
    weights, _ = harness.run(ours, problem)
    expected, _ = harness.run(adam, problem)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-9)


def test_numbers_and_names_are_checked():
    with pytest.raises(ValueError, match="`methods` must be among adam, nadam"):
        options(methods=("nothing",))
    with pytest.raises(ValueError, match="`workers` must hold at least one"):
        options(workers=())
    with pytest.raises(ValueError, match="`seeds`"):
        options(seeds=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", CANDIDATES)
def test_every_candidate_is_made_for_a_rate_that_falls(method):
    candidate = CANDIDATES[method]
    period = candidate.periods[0] or 4
    line = study.Line(method, candidate.ratios[-1], period, 2)
    state = line.optimizer(0.1, 4).init(PARAMS)
    assert state is not None


@pytest.mark.slow
def test_a_study_goes_on_and_seeks_rates_with_the_first_workers(tmp_path, count_rates):
    text = tmp_path / "text.txt"
    letters = np.random.default_rng(0).choice(list("abcdefgh \n"), 4000)
    text.write_text("".join(letters))
    chosen = Adam(
        text_file=text,
        methods=("adam", "two_bits"),
        workers=(1, 2),
        steps=2,
        batch_size=1,
        seeds=2,
        results=tmp_path / "results",
    )
    study.main(chosen)
    (path,) = chosen.results.iterdir()
    lines = (path / record.LOG).read_text().splitlines(keepends=True)
    rows = [each for each in map(json.loads, lines) if each["kind"] == table.KIND]
    with_two = [each for each in rows if each["workers"] == 2]
    for each in with_two:
        first = [
            other
            for other in rows
            if (other["workers"], other["seed"]) == (1, 0)
            and other["method"] == each["method"]
            and other["ratio"] == each["ratio"]
        ]
        assert each["rate"] == min(first, key=lambda other: other["loss"])["rate"]
    assert len(with_two) == 4 * 2
    (path / record.LOG).write_text("".join(lines[:-4]))
    trained = count_rates()
    study.main(chosen)
    lost = [each for each in map(json.loads, lines[-4:]) if each["kind"] == table.KIND]
    assert trained == [each["rate"] for each in lost]
    again = record.read(path)
    assert [each for each in again if each["kind"] != "resumed"] == [
        json.loads(line) for line in lines
    ]
