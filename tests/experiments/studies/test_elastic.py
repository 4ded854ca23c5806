"""Resuming with another number of workers: the residual and the loss."""

import dataclasses

import numpy as np
import pytest

from experiments.studies.elastic.study import (
    Elastic,
    draw,
    follow,
    mean_residual,
    table,
)

CONFIG = Elastic(methods=("gmc",), then=(8, 4), steps=20, every=10, batch_size=32)


@pytest.mark.slow
def test_the_mean_residual_stays_and_the_loss_is_continuous():
    rows = follow("gmc", CONFIG)
    assert [row["workers"] for row in rows] == [8, 4]
    assert rows[0]["residual"] == 0
    assert 0 < rows[1]["residual"] < 1e-6
    for row in rows:
        assert len(row["before"]) == len(row["after"]) == 3
        assert row["after"][0] == pytest.approx(row["before"][-1], rel=1e-4)
        assert row["after"][-1] < row["before"][-1] < row["before"][0]
    config = dataclasses.asdict(CONFIG)
    rows = [
        {"kind": "header", "config": config},
        *({"kind": "continuation", **row} for row in rows),
    ]
    figure = draw(rows)
    (panel,) = figure.axes
    assert len(panel.lines) == 4  # Before, two after, and the checkpoint.
    assert table(rows).row_count == 2


def test_a_state_without_a_residual_has_no_mean_residual():
    assert mean_residual({"momentum": np.ones(3)}) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"then": (0,)}, "`workers`"),
        ({"then": ()}, "`methods` and `then` must each name at least one"),
        ({"methods": ()}, "`methods` and `then` must each name at least one"),
        ({"methods": ("nothing",)}, "`methods` .* got 'nothing'"),
        ({"ratio": 2.0}, "`ratio`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": 10}, "`batch_size` must be a multiple .* as 8, got 10"),
        ({"steps": 15}, "`steps` must be a multiple of `every`"),
    ],
)
def test_options_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Elastic(**options)
