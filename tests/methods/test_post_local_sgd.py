"""Tests of late local steps; its paper is in test_laws."""

from typing import Any

import numpy as np
import pytest

from gmc_jax import exact, local_sgd, post_local_sgd
from tests.support import harness
from tests.support.virtual_iterates import SCHEDULE, problem


def test_before_the_start_it_synchronises_at_every_step_and_then_rarely():
    ours, _ = harness.run(
        post_local_sgd(SCHEDULE, exact(), local_from_step=20, period=8, momentum=0.9),
        problem(),
    )
    often, _ = harness.run(
        local_sgd(SCHEDULE, exact(), period=1, momentum=0.9), problem()
    )
    np.testing.assert_allclose(ours[:21], often[:21], rtol=0, atol=1e-13)
    apart = np.ptp(ours, axis=1).max(axis=1) > 1e-12
    assert [t for t in range(21, 51) if not apart[t]] == [28, 36, 44]


@pytest.mark.parametrize("name", ["local_from_step", "period"])
def test_steps_are_counted_whole(name):
    counts: dict[str, Any] = {"local_from_step": 3, "period": 4} | {name: 0}
    with pytest.raises(ValueError, match=f"`{name}`"):
        post_local_sgd(0.1, exact(), **counts)
