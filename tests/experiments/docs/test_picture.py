"""The README's picture shows what the kept log says."""

import numpy as np
import pytest

from experiments.docs import picture
from experiments.training import record


@pytest.fixture(scope="module")
def rows():
    return record.read(picture.RUN)


def test_each_method_has_a_line_of_its_evaluations(rows):
    (panel,) = picture.draw(rows).axes
    methods = rows[0]["config"]["methods"]
    assert len(panel.lines) == len(methods)
    for method, line in zip(methods, panel.lines, strict=True):
        drawn = np.asarray(line.get_xydata()).tolist()
        assert drawn == [
            [row["bytes"], row["loss"]]
            for row in rows[1:]
            if row["method"] == method
            and row["kind"] == "evaluation"
            and row["step"] > 0
        ]


def test_the_picture_is_small():
    assert 0 < picture.PICTURE.stat().st_size <= 100_000
