"""Tests of where a pattern takes as long as the dense all-reduce, in closed form."""

import math

import pytest

from gmc_jax.clocks.link import Link
from gmc_jax.costs._break_even import faster_between, largest_ratio
from gmc_jax.costs.patterns import Load
from gmc_jax.costs.traffic import Traffic

DENSE = Load(Traffic(100.0, 2), 0.0)
LATENCY, STEP_TIME = 1.0, 5.0


def late(size: float, hops: float, encoding: float, beside: float = 1.0) -> Load:
    traffic = Traffic(size, hops)
    return Load(traffic, encoding, traffic, beside)


@pytest.mark.parametrize(
    ("load", "between"),
    [
        # Encoding takes what dense takes: 2 + 100 / 12.5 seconds.
        (late(0, 0, 10), (0, 12.5)),
        # 20 / b + 2 - 5 + 6 < 100 / b + 2: b < 80; and 6 < 100 / b + 2: b < 25.
        (late(20, 2, 6), (0, 25)),
        # 20 / b + 7 - 5 < 100 / b + 2: any; and all of it may be hidden: any.
        (late(20, 7, 0), (0, math.inf)),
        # Larger messages: 200 / b + 2 - 5 < 100 / b + 2: b > 20.
        (late(200, 2, 0), (20, math.inf)),
        # And they are encoded for longer than latencies: 4 < 100 / b + 2.
        (late(200, 0, 4), (100 / 3, 50)),
        (late(200, 0, 7), None),
        # Half a step hides half as much.
        (late(200, 2, 0, 0.5), (40, math.inf)),
    ],
)
def test_bandwidths_between_which_a_late_load_is_faster(load, between):
    found = faster_between(load, DENSE, LATENCY, STEP_TIME)
    assert found == (between and pytest.approx(between))

    def is_faster(bandwidth: float) -> bool:
        link = Link(LATENCY, bandwidth)
        return load.seconds(link, STEP_TIME) < DENSE.seconds(link, STEP_TIME)

    low, high = found or (math.inf, 0)
    for bandwidth in (1e-3, 12, 13, 19, 21, 24, 26, 34, 39, 41, 49, 51, 1e9):
        assert is_faster(bandwidth) == (low < bandwidth < high)


def test_the_largest_ratio_is_where_an_excess_crosses_zero():
    found = largest_ratio(lambda ratio: ratio - 0.02, 1e-9)
    assert 0.02 * (1 - 1e-4) <= found < 0.02
    assert largest_ratio(lambda ratio: ratio + 1, 1e-9) == 0
    assert largest_ratio(lambda ratio: ratio - 2, 1e-9) == 1
