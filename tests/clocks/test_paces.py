"""Tests of paces: how long gradients take."""

import numpy as np
import pytest

from gmc_jax import paces


def test_every_pace_has_the_seconds_it_says():
    np.testing.assert_array_equal(paces.constant(2, 3.0), [[3], [3]])
    slow = paces.straggler(3, factor=10, seconds=0.5, straggler=1)
    np.testing.assert_array_equal(slow, [[0.5], [5], [0.5]])
    random = paces.random(4, 4000, spread=0.3, seconds=2.0, seed=1)
    assert np.median(random) == pytest.approx(2.0, rel=0.02)
    assert np.log(random).std() == pytest.approx(0.3, rel=0.02)
    np.testing.assert_array_equal(
        random, paces.random(4, 4000, spread=0.3, seconds=2.0, seed=1)
    )


def test_a_trace_comes_from_a_file(tmp_path):
    (tmp_path / "trace.txt").write_text("1 2 3\n4 5 6\n", encoding="utf-8")
    pace = paces.recorded(tmp_path / "trace.txt")
    np.testing.assert_array_equal(pace, [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(pace, paces.recorded(pace))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: paces.constant(0), "`workers`"),
        (lambda: paces.constant(2, -1.0), "`seconds`"),
        (lambda: paces.straggler(2, factor=0), "`factor`"),
        (lambda: paces.straggler(2, factor=3, straggler=2), "from 0 to 1, got 2"),
        (lambda: paces.straggler(2, factor=3, straggler=-1), "`straggler`"),
        (lambda: paces.random(2, 5, spread=-1), "`spread`"),
        (lambda: paces.recorded([[1, 0]]), r"`trace` .* from 0.0 to 1.0"),
        (lambda: paces.recorded([1, 2]), r"shape \(2,\)"),
    ],
)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
