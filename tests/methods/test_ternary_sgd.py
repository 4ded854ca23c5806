"""Tests of TernGrad against its paper, and its identities."""

import numpy as np
import pytest

from gmc_jax import all_gather, dmsgd, message_bits, ternary_sgd, terngrad
from tests.support import harness, problems, rounded
from tests.support.quantisers import assert_mean_is
from tests.support.virtual_iterates import SCHEDULE, problem, warm_up, warm_up_at

RATES = {"constant": (0.02, lambda t: 0.02), "warm-up": (warm_up, warm_up_at)}


@pytest.mark.parametrize(
    ("rate", "workers", "bucket", "clip"),
    [
        ("warm-up", 3, None, 1.0),
        *(
            pytest.param(rate, workers, bucket, clip, marks=pytest.mark.slow)
            for rate in RATES
            for workers, bucket, clip in ((1, None, 1.5), (3, 6, None), (8, None, 2.5))
        ),
    ],
)
def test_it_equals_its_paper(rate, workers, bucket, clip):
    everyone = problems.quadratics(workers, steps=50, d=20)
    ours, theirs = RATES[rate]
    tx = ternary_sgd(ours, bucket=bucket, clip=clip, seed=5)
    weights, _ = harness.run(tx, everyone)
    code = rounded.terngrad(bucket, clip)
    drawn = rounded.draws(everyone, seed=5)
    expected = rounded.rounded_sgd(everyone, theirs, code, drawn)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    assert np.abs(weights[-1] - weights[0]).max() > 0.1


@pytest.mark.parametrize("clip", [pytest.param(None, marks=pytest.mark.slow), 1.0])
def test_a_step_is_on_average_that_of_sgd_on_clipped_gradients(clip):
    gradients = problems.quadratics().noise[0]
    clipped = gradients.copy()
    for row in clipped:
        for part in rounded.LEAVES:
            limit = np.inf if clip is None else clip * row[part].std()
            row[part] = np.clip(row[part], -limit, limit)
    assert (clip is None) == (clipped == gradients).all()
    steps = rounded.updates(ternary_sgd(0.1, clip=clip), gradients, count=2000)
    assert_mean_is(-0.1 * clipped.mean(axis=0), steps)


@pytest.mark.slow
def test_it_is_dmsgd_without_momentum_through_its_channel():
    channel = all_gather(terngrad(8, 2.0), per_leaf=True, seed=2)
    tx = ternary_sgd(SCHEDULE, bucket=8, clip=2.0, seed=2)
    ours, _ = harness.run(tx, problem())
    same, _ = harness.run(dmsgd(SCHEDULE, channel, momentum=None), problem())
    np.testing.assert_array_equal(ours, same)


def test_by_default_it_sends_two_bits_an_entry_and_a_float_a_leaf():
    params = {"matrix": np.zeros((64, 64), np.float32)}
    assert message_bits(ternary_sgd(0.1), params) == 64 * 64 * 2 + 32


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        ternary_sgd(-0.1)
    with pytest.raises(ValueError, match="`clip` must be"):
        ternary_sgd(0.1, clip=0.0)
    with pytest.raises(ValueError, match="`bucket` must be a whole"):
        ternary_sgd(0.1, bucket=0)
