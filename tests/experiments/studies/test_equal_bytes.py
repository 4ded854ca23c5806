"""Tests of the comparison at equal steps and at equal bytes."""

import dataclasses
import json

import numpy as np
import pytest
from rich.table import Table

from experiments.studies.equal_bytes import problems, study
from experiments.studies.equal_bytes.any_rate import AnyRate
from experiments.studies.equal_bytes.rate_search import best_rates
from experiments.studies.equal_bytes.study import EqualBytes
from experiments.training import record, tasks
from experiments.training.methods import METHODS
from experiments.training.train import train

CONFIG = problems.digits(steps=40)


@pytest.mark.parametrize(
    ("least", "tried"),
    [
        (1.0, [1 / 3, 1, 3]),
        (9.0, [1 / 3, 1, 3, 9, 27]),
        (1 / 9, [1 / 3, 1, 3, 1 / 9, 1 / 27]),
        (1e9, [1 / 3, 1, 3, 9, 27, 81, 243]),
    ],
)
def test_the_grid_grows_where_its_edge_is_best(least, tried):
    rates = []

    def loss(rate):
        rates.append(rate)
        return abs(np.log(rate / least))

    ranked = best_rates(loss, 1.0)
    np.testing.assert_allclose(rates, tried, rtol=0.03)
    assert ranked == sorted(rates, key=lambda rate: abs(np.log(rate / least)))


def test_a_method_that_diverges_is_tried_at_smaller_rates():
    ranked = best_rates(lambda rate: np.nan if rate > 0.2 else rate, 1.0)
    assert ranked == [0.0041, 0.012, 0.037, 0.11]
    assert best_rates(lambda rate: np.inf, 1.0) == [0.0041]


def test_a_budget_ends_before_its_bytes_are_exceeded():
    sent = np.cumsum([0.0, 0, 5, 0, 5, 0, 5, 0, 5])
    assert problems.stops(sent, 100.0) == [8, 5, 1]
    assert problems.stops(sent, 2000.0) == [8, 8, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # All of 40 messages; 4 of them in a tenth of the bytes, none in a hundredth.
        ("dmsgd", [40, 4, 0]),
        ("gmc", [40, 40, 19]),  # Places take as many bytes as values.
        ("local_sgd", [40, 40, 11]),  # The first synchronisation is in step 12.
        ("post_local_sgd", [40, 4, 0]),  # It begins as dense does.
        ("one_bit_adam", [40, 4, 0]),
    ],
)
def test_steps_within_a_budget_are_those_before_its_bytes_are_sent(method, expected):
    task = tasks.build(CONFIG, 0)
    dense = problems.bytes_sent("dmsgd", task, CONFIG)[-1]
    sent = problems.bytes_sent(method, task, CONFIG)
    assert problems.stops(sent, dense) == expected


@pytest.mark.parametrize("method", ["signum", "local_adam"])
def test_bits_of_steps_have_the_mean_that_runs_report(method):
    params = np.zeros(960, np.float32)
    compression = CONFIG.compression(24)
    bits = METHODS[method].bits_of_steps(compression, params)
    assert bits.shape == (24,)
    assert np.mean(bits) == METHODS[method].bits(compression, params)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gmc", "slowmo"])
def test_one_program_trains_as_a_run_does_at_any_rate_and_with_any_seed(
    method, tmp_path
):
    built = [tasks.build(CONFIG, seed) for seed in (0, 1)]
    program = AnyRate(problems.optimizer(method, built[0], CONFIG), built[0], CONFIG)
    for seed, rate in ((0, 0.003), (1, 0.001)):
        config = dataclasses.replace(
            CONFIG, learning_rates=((method, rate),), evaluations=2
        )
        reached = program.train(built[seed], rate, [20, 40])
        with record.create(tmp_path, "run", {}) as log:
            train(method, [built[seed]], [seed], config, log)
        rows = [row for row in log.rows if row["kind"] == "evaluation" and row["step"]]
        losses = [row["loss"] for row in rows]
        np.testing.assert_allclose([each.loss for each in reached], losses, rtol=1e-3)
        assert reached[-1].accuracy == pytest.approx(rows[-1]["accuracy"], abs=0.003)


@pytest.mark.slow
def test_after_a_loss_that_is_not_finite_the_training_ends():
    task = tasks.build(CONFIG, 0)._replace(
        evaluate=lambda *model: {
            "loss": np.nan,
            "test_loss": np.nan,
            "accuracy": 0.5,
        }
    )
    program = AnyRate(problems.optimizer("dmsgd", task, CONFIG), task, CONFIG)
    last = program.train(task, 0.1, [1, 2])[-1]
    assert last == (np.inf, np.inf, 0.5)


@pytest.mark.slow
def test_a_study_goes_on_after_a_kill_and_overwrites_nothing(tmp_path, count_rates):
    options = EqualBytes(
        methods=("dmsgd", "gmc"), steps=6, seeds=2, results=tmp_path / "results"
    )
    study.main(options)
    (path,) = options.results.iterdir()
    lines = (path / record.LOG).read_text().splitlines(keepends=True)
    kept = [*lines[:-4], lines[-4][:20]]
    (path / record.LOG).write_text("".join(kept))
    trained = count_rates()
    study.main(options)
    lost = [row for row in map(json.loads, lines[-4:]) if row["kind"] == "training"]
    assert trained == [row["rate"] for row in lost]
    again = record.read(path)
    assert [row for row in again if row["kind"] != "resumed"] == [
        json.loads(line) for line in lines
    ]
    assert (path / "figure.png").stat().st_size
    del trained[:]
    study.main(dataclasses.replace(options, methods=("dmsgd",)))
    assert sorted(each.name for each in options.results.iterdir()) == [
        "equal_bytes-001",
        "equal_bytes-002",
    ]
    assert record.read(path) == again


@pytest.mark.slow
def test_methods_that_send_as_much_as_dense_are_left_out(monkeypatch):
    some = ("dmsgd", "gmc", "choco_sgd", "d_psgd", "sgp", "adam", "qsgd")
    monkeypatch.setattr(problems, "EVERY_METHOD", some)
    assert problems.sending_less(CONFIG) == (
        *("dmsgd", "adam", "gmc", "choco_sgd", "qsgd"),
    )


ROWS = [
    {
        "kind": "header",
        "config": {
            "problems": {"digits": {"workers": 8}, "text": {}},
            **{"methods": ["dmsgd", "gmc", "dgc"], "seed": 0, "seeds": 2},
            **{"rates_apart": 3.0, "budgets": [0.1, 0.01]},
        },
    },
    *(
        {
            **{"kind": "training", "problem": "digits", "method": method},
            **{"rate": rate, "seed": seed, "losses": losses, "accuracy": 0.5},
            **{"bytes": sent, "dense_bytes": 100.0, "stops": [40, 4, 0]},
        }
        for method, rate, seed, losses, sent in [
            ("dmsgd", 0.1, 0, [0.25, 1.0, 2.0], 100.0),
            ("dmsgd", 0.3, 0, [0.125, 1.0, 2.0], 100.0),
            ("dmsgd", 0.3, 1, [0.375, 1.0, 2.0], 100.0),
            ("gmc", 0.1, 0, [0.5, 0.5, 1e-4], 2.0),
            ("gmc", 0.1, 1, [0.5, 0.5, 1e-4], 2.0),
            ("gmc", 0.3, 0, [0.25, 0.25, 0.25], 2.0),
            ("gmc", 0.3, 1, [None, None, 0.25], 2.0),
            ("dgc", 0.1, 0, [None, None, 3.0], 2.0),
            ("dgc", 0.1, 1, [0.5, 0.5, 3.0], 2.0),
        ]
    ),
]


def test_a_table_has_the_mean_at_the_best_rate_at_which_no_seed_diverges():
    losses, rates = (
        [list(column.cells) for column in shown.columns]
        for shown in study.STUDY.tables(ROWS)
        if isinstance(shown, Table)
    )
    assert losses[4:] == 3 * [["", "", ""]]  # Text has not begun.
    assert losses[:4] == [
        ["DMSGD, dense", "GMC", "DGC, masked"],
        ["0.2500 ", "0.5000*", "diverges"],
        ["1.0000 ", "0.5000*", "diverges"],
        ["2.0000 ", "1.0e-4*", "3.0000*"],
    ]
    assert rates[1:3] == [["0.3", "0.1", "0.1"], ["100%", "2%", "2%"]]


def test_a_figure_has_a_point_for_each_mean_and_none_where_a_method_diverges():
    (figure,) = study.STUDY.figures(ROWS).values()
    (panel,) = figure.axes
    steps, _, one_percent = (np.asarray(line.get_xdata()) for line in panel.lines)
    np.testing.assert_allclose(steps, [0.25, 0.5, np.nan])
    np.testing.assert_allclose(one_percent, [2.0, 1e-4, 3.0])
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert names == ["DMSGD, dense", "GMC", "DGC, masked"]
    with pytest.raises(ValueError, match="no method is trained with all seeds"):
        study.STUDY.figures(ROWS[:2])


def test_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"`methods` must be among .*, got 'adamax'"):
        EqualBytes(methods=("adamax",))


def test_a_text_that_is_missing_is_an_error_before_anything_is_trained(tmp_path):
    options = EqualBytes(tmp_path / "text", ("gmc",), seeds=1, results=tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        study.main(options)
    assert list(tmp_path.iterdir()) == []
