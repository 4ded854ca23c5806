"""Tests of QSGD against its paper, and its identities."""

import numpy as np
import pytest

from gmc_jax import all_gather, dmsgd, message_bits, qsgd, quantised_sgd
from tests.support import harness, problems, rounded
from tests.support.quantisers import assert_mean_is
from tests.support.virtual_iterates import SCHEDULE, problem, warm_up, warm_up_at

RATES = {"constant": (0.02, lambda t: 0.02), "warm-up": (warm_up, warm_up_at)}


@pytest.mark.parametrize(
    ("rate", "workers", "bucket"),
    [
        ("warm-up", 3, 6),
        *(
            pytest.param(rate, workers, bucket, marks=pytest.mark.slow)
            for rate in RATES
            for workers, bucket in ((1, 6), (3, None), (8, 512))
        ),
    ],
)
def test_it_equals_its_paper(rate, workers, bucket):
    everyone = problems.quadratics(workers, steps=50, d=20)
    ours, theirs = RATES[rate]
    tx = quantised_sgd(ours, levels=7, bucket=bucket, seed=5)
    weights, _ = harness.run(tx, everyone)
    code = rounded.qsgd(7, bucket)
    drawn = rounded.draws(everyone, seed=5)
    expected = rounded.rounded_sgd(everyone, theirs, code, drawn)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    assert np.abs(weights[-1] - weights[0]).max() > 0.1


def test_a_step_is_on_average_that_of_sgd():
    gradients = problems.quadratics().noise[0]
    steps = rounded.updates(quantised_sgd(0.1, levels=1), gradients, count=2000)
    assert_mean_is(-0.1 * gradients.mean(axis=0), steps)


@pytest.mark.slow
def test_it_is_dmsgd_without_momentum_through_its_channel():
    channel = all_gather(qsgd(3, 8), per_leaf=True, seed=2)
    ours, _ = harness.run(
        quantised_sgd(SCHEDULE, levels=3, bucket=8, seed=2), problem()
    )
    same, _ = harness.run(dmsgd(SCHEDULE, channel, momentum=None), problem())
    np.testing.assert_array_equal(ours, same)


def test_by_default_it_sends_four_bits_an_entry_and_a_float_a_bucket():
    params = {"matrix": np.zeros((64, 64), np.float32)}
    assert message_bits(quantised_sgd(0.1), params) == 64 * 64 * 4 + 8 * 32


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        quantised_sgd(-0.1)
    with pytest.raises(ValueError, match="`levels` must be from 1 to 127"):
        quantised_sgd(0.1, levels=128)
    with pytest.raises(ValueError, match="`bucket` must be a whole"):
        quantised_sgd(0.1, bucket=0)
