"""Tests of the strategies by which workers take in what arrives."""

import numpy as np
import pytest

from gmc_jax import corrected, eager, mix

NOW, SENT, ANCHOR = ({"a": np.array([x, -x], np.float32)} for x in (3, 2, 7))


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        (mix(0.0), 7.0),
        (mix(1.0), 3.0),
        (mix(0.25), 6.0),
        (corrected(), 8.0),
        (eager(), 7.0),
    ],
    ids=repr,
)
def test_where_a_worker_goes(merge, expected):
    merged = merge.combine(NOW, SENT, ANCHOR)
    np.testing.assert_array_equal(merged["a"], [expected, -expected])


def test_which_delays_there_are():
    assert [mix(0.5).wait(delay, 3) for delay in range(3)] == [0, 1, 2]
    assert [corrected().wait(delay, 3) for delay in range(4)] == [0, 1, 2, 3]
    assert [eager().wait(delay, 3) for delay in (1, 2, 3)] == [0, 0, 0]
    with pytest.raises(ValueError, match="`delay` must be less than `period`"):
        mix(0.5).wait(3, 3)
    with pytest.raises(ValueError, match="`delay` must be at least 1"):
        eager().wait(0, 3)


def test_alpha_is_a_share():
    with pytest.raises(ValueError, match="`alpha` must be in"):
        mix(1.5)
