"""Tests of the checks of hyper-parameters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax.utils import checks

ACCEPTED = {
    checks.fraction: [1e-9, 0.5, 1, np.float32(1), jnp.float32(0.1)],
    checks.decay: [0, 0.9, np.float64(0.999)],
    checks.proportion: [0, 0.5, 1],
    checks.positive_int: [1, 7, np.int32(3), jnp.int32(2)],
    checks.steps: [1, 7, np.int32(3), jnp.int32(2)],
    checks.seed: [0, -1, 2**63 - 1, np.uint32(7)],
    checks.momentum: [None, 0, 0.9, np.array(0.5)],
    checks.positive: [1e-9, 1, 1e9, np.float32(0.1), jnp.float32(7)],
    checks.learning_rate: [0, 1e-3, 10.0, lambda step: -1.0, jnp.float32(0.1)],
}
REFUSED = {
    checks.fraction: [0, -0.1, 1.001, math.nan, math.inf],
    checks.decay: [-0.1, 1, 1.5, math.nan],
    checks.proportion: [-0.1, 1.1, math.nan],
    checks.positive_int: [0, -1, 1.5, 2.0, math.nan, math.inf],
    checks.steps: [0, -1, 1.5, 2.0, math.nan, math.inf],
    checks.seed: [0.0, 2**63, math.nan],
    checks.momentum: [-0.1, 1, 1.5, math.nan],
    checks.positive: [0, -0.1, math.nan, math.inf],
    checks.learning_rate: [-1e-3, math.nan, math.inf],
}


@pytest.mark.parametrize(
    ("check", "value"),
    [(c, value) for c, values in ACCEPTED.items() for value in values],
)
def test_valid_arguments_pass(check, value):
    check(argument=value)


@pytest.mark.parametrize(
    ("check", "value"),
    [(c, value) for c, values in REFUSED.items() for value in values],
)
def test_errors_name_the_argument_as_the_caller_spelled_it(check, value):
    with pytest.raises(ValueError, match=rf"^`argument` must be .* got {value}"):
        check(argument=value)


@pytest.mark.parametrize(
    "value", [None, True, "0.1", [0.1], np.ones(2), np.array(True), 1j, object()]
)
@pytest.mark.parametrize("check", [checks.fraction, checks.decay, checks.positive_int])
def test_anything_but_a_number_is_an_error(check, value):
    with pytest.raises(TypeError, match="`argument` must be a number"):
        check(argument=value)


@pytest.mark.parametrize(
    "check", [check for check in REFUSED if check is not checks.positive_int]
)
def test_traced_values_pass(check):
    def traced(value):
        check(argument=value)
        return value

    assert jax.jit(traced)(-5.0) == -5


@pytest.mark.parametrize("value", [7, 7.0, np.int64(7), np.float32(7), jnp.int32(7)])
def test_a_large_count_may_be_a_float(value):
    assert type(checks.whole(argument=value)) is int
    assert checks.whole(argument=value) == 7


@pytest.mark.parametrize("value", [0, 0.0, -1.0, 1.5, math.inf, math.nan])
def test_a_count_is_whole(value):
    with pytest.raises(ValueError, match="`argument` must be a whole number of at"):
        checks.whole(argument=value)


def test_only_floating_leaves_can_be_averaged():
    checks.floating({"a": jnp.ones(2), "b": np.float32(1), "c": 1.0})
    with pytest.raises(TypeError, match=r"`\['n'\]` .* average it, got dtype int32"):
        checks.floating({"a": jnp.ones(2), "n": jnp.ones(2, int)})
    with pytest.raises(TypeError, match=r"got dtype complex64"):
        checks.floating(jnp.ones(2, complex))


def test_floats_of_4_bits_are_named():
    """No collective takes them, nor integers of their width; those of 8 bits pass."""
    tree = {"x": jnp.ones(2, "float8_e4m3fn"), "n": jnp.ones(2, "float4_e2m1fn")}
    with pytest.raises(
        TypeError, match=r"`\['n'\]` .* average it, got dtype float4_e2m1fn"
    ):
        checks.floating(tree)
    checks.floating(tree["x"])


@pytest.mark.parametrize(
    "factory", [gmc_jax.gmc, gmc_jax.gmc_plus, gmc_jax.dgc, gmc_jax.ef_sgd]
)
def test_a_rate_is_needed(factory):
    with pytest.raises(TypeError, match=r"`learning_rate` .* got None"):
        factory(None, gmc_jax.exact())


@pytest.mark.parametrize(
    "factory",
    [
        lambda channel: gmc_jax.gmc(0.1, channel),
        lambda channel: gmc_jax.dgc(0.1, channel),
        lambda channel: gmc_jax.dmsgd(0.1, channel),
        lambda channel: gmc_jax.count_entries(channel),
        lambda channel: gmc_jax.cser(0.1, channel, gmc_jax.exact(), period=2),
        lambda channel: gmc_jax.dist_ef_sgdm(0.1, gmc_jax.exact(), channel),
        lambda channel: gmc_jax.join_channels([gmc_jax.exact(), channel], [3]),
    ],
)
def test_a_channel_must_be_a_channel(factory):
    with pytest.raises(TypeError, match=r"channel.* got the compressor.*all_gather\("):
        factory(gmc_jax.top_k(0.1))
    with pytest.raises(TypeError, match=r"a channel, got <func.* write `exact\(\)`"):
        factory(gmc_jax.exact)


@pytest.mark.parametrize("factory", [gmc_jax.all_gather, gmc_jax.all_reduce])
def test_a_compressor_must_be_a_compressor(factory):
    with pytest.raises(TypeError, match="`compressor` must be a compressor"):
        factory(gmc_jax.exact())


def test_two_channels_of_a_method_must_share_an_axis():
    here, there = gmc_jax.exact(), gmc_jax.exact(axis_name="hosts")
    for factory in (
        lambda: gmc_jax.cser(0.1, here, there, period=2),
        lambda: gmc_jax.dist_ef_sgdm(0.1, here, there),
    ):
        with pytest.raises(ValueError, match=r"same workers.*\['workers', 'hosts'\]"):
            factory()
