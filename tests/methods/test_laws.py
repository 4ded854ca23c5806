"""What holds for every method, over one table: a new one adds a line to it.

Every method equals the transcription of its paper, over 50 steps. The whole product of
settings is slow; by default each method meets each compressor, in turn with numbers of
workers, schedules and precisions.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, all_reduce, random_block, random_k, top_k
from tests import problems, references

STEPS, D, RATIO, PEAK = 50, 20, 0.2, 0.02


class Method(NamedTuple):
    """A method, its transcription, and how much of the latter's residual it keeps."""

    ours: Callable
    paper: Callable
    residual: int  # 0: it has none; -1: in units of steps, signed as updates are


METHODS = {
    "dmsgd": Method(gmc_jax.dmsgd, references.dmsgd, 0),
    "dmsgd_local": Method(gmc_jax.dmsgd_local, references.dmsgd_local, 0),
    "ef_sgd": Method(gmc_jax.ef_sgd, references.ef_sgd, -1),
    "ef_momentum": Method(gmc_jax.ef_momentum, references.ef_momentum, -1),
    "gmc": Method(gmc_jax.gmc, references.gmc, 1),
    "gmc_server_momentum": Method(
        gmc_jax.gmc_server_momentum, references.gmc_server_momentum, 1
    ),
    "gmc_rate_inside": Method(gmc_jax.gmc_rate_inside, references.gmc_rate_inside, -1),
    "dgc": Method(gmc_jax.dgc, references.dgc, 1),
    "dgc without masking": Method(
        functools.partial(gmc_jax.dgc, factor_masking=False), references.dgc_unmasked, 1
    ),
}
CHANNELS = {
    "top_k": all_gather(top_k(RATIO)),
    "random_k": all_gather(random_k(RATIO), seed=1),
    "random_block": all_reduce(random_block(RATIO), seed=2),
}
WORKERS = [1, 2, 5, 8]
RATES = {
    "constant": (PEAK, lambda t: PEAK),
    "cosine": (
        optax.cosine_decay_schedule(PEAK, STEPS),
        lambda t: PEAK / 2 * (1 + math.cos(math.pi * t / STEPS)),
    ),
    "from and to zero": (
        lambda t: PEAK * jnp.clip(jnp.minimum(t - 2.0, 40.0 - t) / 10, 0, 1),
        lambda t: PEAK * min(max(min(t - 2, 40 - t) / 10, 0), 1),
    ),
}
TOLERANCES = {np.float64: 1e-10, np.float32: 1e-4}

every_method = pytest.mark.parametrize("method", METHODS)


@functools.cache
def problem(workers: int) -> problems.Problem:
    return problems.quadratics(workers, steps=STEPS, d=D)


@functools.cache
def draws(compressor: str, dtype: type) -> np.ndarray:
    """Which coordinates the library draws at each step, [steps, d]: mere data."""
    draw, seed = {
        "random_k": (random_k(RATIO), 1),
        "random_block": (random_block(RATIO), 2),
    }[compressor]
    with jax.enable_x64(dtype == np.float64):

        def kept(step):
            key = jax.random.fold_in(jax.random.key(seed), step)
            return draw.encode(key, jnp.ones(D, dtype))[1] == 0

        return np.asarray(jax.jit(jax.vmap(kept))(jnp.arange(STEPS)))


def select(compressor: str, dtype: type) -> references.Select:
    if compressor == "top_k":
        return references.largest(RATIO)
    return references.drawn(draws(compressor, dtype))


def assert_equals_the_paper(method, compressor, workers, rate, dtype):
    ours, paper, share = METHODS[method]
    rate, eta = RATES[rate]
    tolerance = TOLERANCES[dtype]

    weights, states = problems.run(
        ours(rate, CHANNELS[compressor]), problem(workers), dtype
    )
    expected, residuals = paper(problem(workers), eta, select(compressor, dtype))

    assert weights.dtype == dtype
    size = np.abs(expected).max()
    np.testing.assert_allclose(weights, expected, rtol=0, atol=tolerance * size)
    # The weights have moved, further than the tolerance forgives.
    assert np.abs(expected[-1] - expected[0]).max() > 0.1 * size
    if share:
        size = np.abs(residuals).max()
        np.testing.assert_allclose(
            problems.residual(states),
            share * residuals,
            rtol=0,
            atol=tolerance * size,
        )


# All methods with all compressors, the rest in turn.
TURNS = [
    (
        method,
        compressor,
        WORKERS[(i + j) % 4],
        ["constant", "cosine"][(i // 2 + j) % 2],
        [np.float64, np.float32][(i + j // 2) % 2],
    )
    for i, method in enumerate(METHODS)
    for j, compressor in enumerate(CHANNELS)
]


@pytest.mark.parametrize(("method", "compressor", "workers", "rate", "dtype"), TURNS)
def test_every_method_equals_its_paper(method, compressor, workers, rate, dtype):
    assert_equals_the_paper(method, compressor, workers, rate, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rate", ["constant", "cosine"])
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("compressor", CHANNELS)
@every_method
def test_every_method_equals_its_paper_in_all_settings(
    method, compressor, workers, rate, dtype
):
    assert_equals_the_paper(method, compressor, workers, rate, dtype)


@every_method
def test_a_rate_that_starts_and_ends_at_zero_makes_no_nan(method):
    assert_equals_the_paper(method, "top_k", 2, "from and to zero", np.float64)


def test_the_turns_meet_everything():
    settings = [set(values) for values in zip(*TURNS, strict=True)]
    assert [len(values) for values in settings] == [9, 3, 4, 2, 2]
    pairs = {(workers, dtype) for _, _, workers, _, dtype in TURNS}
    assert len(pairs) == 8


@every_method
def test_identical_workers_do_what_one_alone_does(method):
    alone = problem(1)
    together = problems.Problem(
        hessians=np.tile(alone.hessians, (4, 1, 1)),
        targets=np.tile(alone.targets, (4, 1)),
        noise=np.tile(alone.noise, (1, 4, 1)),
        start=alone.start,
    )
    tx = METHODS[method].ours(PEAK, CHANNELS["top_k"])
    one, _ = problems.run(tx, alone)
    many, _ = problems.run(tx, together)
    np.testing.assert_allclose(many, one, rtol=1e-12)


@every_method
def test_the_order_of_workers_does_not_matter(method):
    order = [2, 0, 4, 1, 3]
    mixed = problems.Problem(
        hessians=problem(5).hessians[order],
        targets=problem(5).targets[order],
        noise=problem(5).noise[:, order],
        start=problem(5).start,
    )
    tx = METHODS[method].ours(PEAK, CHANNELS["top_k"])
    ours, states = problems.run(tx, problem(5))
    theirs, mixed_states = problems.run(tx, mixed)
    np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-11)
    if METHODS[method].residual:
        np.testing.assert_allclose(
            problems.residual(mixed_states),
            problems.residual(states)[:, order],
            rtol=1e-8,
            atol=1e-8,
        )


@pytest.mark.parametrize("method", [name for name in METHODS if name != "ef_sgd"])
@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_momentum_must_fade(method, momentum):
    with pytest.raises(ValueError, match=r"`(momentum|decay)` .* lie in \[0, 1\)"):
        METHODS[method].ours(0.1, CHANNELS["top_k"], momentum=momentum)


@every_method
@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_a_learning_rate_is_finite_and_not_negative(method, rate):
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        METHODS[method].ours(rate, CHANNELS["top_k"])


@every_method
def test_updates_have_the_dtypes_that_apply_updates_expects(method):
    """bfloat16 parameters stay bfloat16; what is remembered is float32."""
    tx = METHODS[method].ours(PEAK, CHANNELS["top_k"])
    params = jax.tree.map(lambda x: x.astype("bfloat16"), problems.tree(jnp.ones(D)))
    draw = np.random.default_rng(0)
    gradients = jax.tree.map(
        lambda x: draw.normal(size=(3, 2, *x.shape)).astype("bfloat16"), params
    )
    _, states = problems.updates(tx, params, gradients)
    for leaf in jax.tree.leaves(states):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert leaf.dtype == np.float32
    chex.assert_tree_all_finite(states)


def test_the_two_forms_of_algorithm_1_are_the_same():
    """The momentum as a difference of weights, and as what was last sent."""
    for (_, eta), workers in itertools.product(RATES.values(), (1, 5)):
        chosen = references.largest(RATIO)
        printed = references.gmc(problem(workers), eta, chosen)
        stored = references.gmc_stored(problem(workers), eta, chosen)
        np.testing.assert_allclose(printed[0], stored[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(printed[1], stored[1], rtol=0, atol=1e-9)
