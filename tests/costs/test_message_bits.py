"""Tests of `message_bits`: of methods, partitions, schedules and large models."""

import itertools
from collections.abc import Hashable

import jax
import jax.numpy as jnp
import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    exact,
    gmc,
    message_bits,
    peak_message_bits,
    random_block,
    top_k,
)
from tests.support.harness import start
from tests.support.papers import PAPERS, SECOND
from tests.support.small_model import D, params


def test_dense_and_compressed_bits_compare():
    dense, sparse = exact(), all_gather(top_k(0.1))
    ratio = message_bits(dense, params()) / message_bits(sparse, params())
    assert ratio == D / (2 * 3)
    for one, other in itertools.pairwise([0.1, 0.2, 0.5, 1.0]):
        assert message_bits(all_gather(top_k(one)), params()) < message_bits(
            all_gather(top_k(other)), params()
        )


PLAIN = {  # These average through one channel at every step.
    *("dmsgd", "dmsgd_local", "ef_sgd", "ef_momentum", "def_sgd", "def_a", "saef"),
    "detached_optimizer",
    *("gmc", "gmc_plus", "gmc_server_momentum", "gmc_rate_inside", "dgc"),
    *("dgc without masking", "dgc with nesterov", "dist_ef_sgdm"),
    *("power_sgd", "ef21", "distributed_lion", "one_bit_adam"),
    "double_squeeze",
}
QUICK = {"gmc", "saef", "dist_ef_sgdm", "cser", "post_local_sgd"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method in QUICK else pytest.mark.slow)
        for method in PAPERS
    ],
)
def test_bits_of_a_method_are_those_of_its_channels(method):
    channel = all_gather(top_k(0.1), per_leaf=True)
    tx = PAPERS[method].ours(0.1, channel)
    message, dense = 64 * 3, 32 * 20
    reset = message_bits(SECOND[0], start())
    expected = {
        "saef that averages": message + dense / 7,
        "cser": message + reset / 3,
        "cser with nesterov": message + reset / 7,
        "local_sgd": message / 4,
        "local_sgd that resets": message / 3,
        "post_local_sgd": message / 6,
        "double_averaging": (message + dense) / 4,
        "lookahead": message / 5,
    } | dict.fromkeys(PLAIN, message_bits(channel, start()))
    average = message_bits(tx, start())
    assert average == pytest.approx(expected.get(method, message / 4))
    assert isinstance(average, int) == (average == int(average))


def test_only_leaves_that_are_sent_count():
    """A partition sends less than the whole tree would."""
    labels = {"bias": "dense", "kernel": "sparse"}
    channel = all_gather(top_k(0.1))
    tx = optax.partition({"dense": optax.sgd(0.1), "sparse": gmc(0.1, channel)}, labels)
    kernel = start()["kernel"]
    assert message_bits(tx, start()) == message_bits(channel, kernel)
    both: dict[Hashable, optax.GradientTransformation] = {
        "dense": gmc_jax.dmsgd(0.1, exact()),
        "sparse": gmc(0.1, channel),
    }
    assert message_bits(optax.partition(both, labels), start()) == (
        message_bits(exact(), start()["bias"]) + message_bits(channel, kernel)
    )
    frozen = optax.masked(optax.set_to_zero(), {"bias": True, "kernel": True})
    assert message_bits(frozen, start()) == 0


@pytest.mark.parametrize("first", [exact(), all_gather(top_k(0.5))])
def test_bits_of_a_schedule_are_those_of_the_long_run_or_of_the_first_steps(first):
    warm_up = gmc(0.1, gmc_jax.join_channels([first, all_gather(top_k(0.1))], [3]))
    assert message_bits(warm_up, start()) == 64 * 2
    early = 3 * message_bits(first, start())
    assert message_bits(warm_up, start(), steps=4) == (early + 64 * 2) / 4
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        message_bits(warm_up, start(), steps=0)


def test_without_a_cycle_the_mean_is_over_all_steps():
    rare = gmc_jax.local_sgd(0.1, exact(), period=lambda t: 2 + jnp.asarray(t) // 100)
    syncs = local = 0
    for step in range(2**14):
        local = 0 if local + 1 >= 2 + step // 100 else local + 1
        syncs += local == 0
    assert message_bits(rare, start()) == 32 * 20 * syncs / 2**14


def test_a_period_longer_than_the_first_horizon_is_found():
    """Nothing is sent in the first 2^14 steps, so the first 2^20 count."""
    rare = gmc_jax.local_sgd(0.1, exact(), period=20_000)
    assert message_bits(rare, start()) == 32 * 20 / 20_000
    local = gmc_jax.cser(0.1, gmc_jax.drop_all(), gmc_jax.drop_all(), period=2)
    assert message_bits(local, start()) == 0


def test_the_peak_is_that_of_the_longest_step():
    every, resets = all_gather(top_k(0.1)), all_gather(top_k(0.4))
    both = gmc_jax.cser(0.1, every, resets, period=5)
    step, reset = message_bits(every, start()), message_bits(resets, start())
    assert peak_message_bits(both, start()) == step + reset
    assert peak_message_bits(both, start(), steps=4) == step
    assert peak_message_bits(every, start()) == step
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        peak_message_bits(both, start(), steps=0)


def test_bits_may_be_asked_for_while_a_program_is_traced():
    tx = gmc(0.1, all_gather(top_k(0.1)))
    assert jax.jit(lambda: jnp.full((), message_bits(tx, start())))() == 128


@pytest.mark.parametrize("what", [top_k(0.1), optax.sgd, None])
def test_only_channels_and_transformations_send(what):
    with pytest.raises(TypeError, match="`what` must be a channel, such as"):
        message_bits(what, start())
    with pytest.raises(TypeError, match="`what` must be a channel, such as"):
        peak_message_bits(what, start())


def test_bits_need_no_memory():
    huge = [jax.ShapeDtypeStruct((2**31 - 1,), jnp.bfloat16)] * 4
    channel = all_reduce(random_block(0.5), per_leaf=True)
    tx = gmc_jax.slowmo(optax.sgd(0.1), channel, period=2)
    assert message_bits(tx, huge) == 4 * 32 * 2**30 // 2


@pytest.mark.parametrize("per_leaf", [False, True])
def test_bits_of_many_leaves_are_found_without_encoding_each(per_leaf):
    """Leaves alike have messages alike, and the whole vector is of the widest dtype."""
    traced = []

    def encode(key, x):
        traced.append(x)
        return top_k(0.1).encode(key, x)

    channel = all_gather(top_k(0.1)._replace(encode=encode), per_leaf=per_leaf)
    half, one = jnp.zeros((5, 7), jnp.bfloat16), jnp.zeros(11, jnp.float32)
    leaves = [half, one, one, jnp.zeros(0), half] * 20
    bits = 40 * 4 * (16 + 32) + 40 * 2 * 64 if per_leaf else 184 * 64
    assert message_bits(channel, leaves) == bits
    assert len(traced) == (2 if per_leaf else 1)
