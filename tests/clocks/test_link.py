"""Tests of links: the seconds of a message, and what is refused."""

from typing import Any

import pytest

from gmc_jax.clocks.link import Link, check_link


def test_a_message_takes_latency_and_its_size_over_bandwidth():
    assert Link(latency=0.5, bandwidth=4.0).seconds(8) == 0.5 + 8 / 4


def test_by_default_a_message_takes_no_time():
    assert Link().seconds(1e15) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Link(latency=-1.0), "`latency`"),
        (lambda: Link(bandwidth=0.0), "`bandwidth`"),
    ],
)
def test_errors_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_bandwidth_alone_is_refused_as_a_link():
    bandwidth: Any = 125e6
    with pytest.raises(TypeError, match="`link` must be a `Link`, got 125000000"):
        check_link(bandwidth)
