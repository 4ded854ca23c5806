"""Tests of averaged momenta; its paper is in test_laws."""

import jax
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import double_averaging, exact, message_bits, wire_bytes
from tests.support import harness
from tests.support.virtual_iterates import SCHEDULE, problem


def test_where_workers_are_averaged_so_are_their_momenta():
    tx = double_averaging(SCHEDULE, exact(), exact(), period=6)
    _, states = harness.run(tx, problem())
    momenta = harness.residual(states, "trace")
    apart = np.ptp(momenta, axis=1).max(axis=1) > 1e-12
    assert [t for t in range(1, 51) if not apart[t]] == list(range(6, 51, 6))


def test_a_sync_sends_parameters_and_as_much_of_momenta():
    tx = double_averaging(0.1, exact(), exact(), period=6)
    params = harness.start()
    state = params, tx.init(params)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = wire_bytes(train, state, batch)
    assert sent == 2 * 80
    assert sent.always == 0


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`period`"):
        double_averaging(0.1, exact(), exact(), period=0)
    assert isinstance(
        double_averaging(0.1, exact(), exact(), period=1),
        optax.GradientTransformation,
    )


def test_momenta_cost_what_their_own_channel_sends():
    channel = gmc_jax.all_gather(gmc_jax.top_k(0.1))
    tx = double_averaging(0.1, exact(), channel, period=4)
    params = harness.start()
    dense, sparse = message_bits(exact(), params), message_bits(channel, params)
    assert message_bits(tx, params) == (dense + sparse) / 4
