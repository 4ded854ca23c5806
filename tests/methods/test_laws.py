"""What holds for every method, over the tables in `tests/support/methods.py`.

Every method equals the transcription of its paper, over 50 steps. By default each
method runs with one compressor of the library, in turn with numbers of workers,
schedules and precisions, and with one that compiles fast. The slow run has every pair
of a compressor, a schedule and a number of workers.
"""

import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import Compressor, all_gather, all_reduce, random_block, random_k, top_k
from tests.support import harness, problems, references
from tests.support.papers import PAPERS

STEPS, D, RATIO, PEAK = 50, 20, 0.2, 0.02


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

every_method = pytest.mark.parametrize("method", PAPERS)


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
    ours, paper, share = PAPERS[method]
    rate, eta = RATES[rate]
    tolerance = TOLERANCES[dtype]

    weights, states = harness.run(
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
            harness.residual(states),
            share * residuals,
            rtol=0,
            atol=tolerance * size,
        )


TURNS = [
    # Its momentum is of pseudo-gradients over the rate of their last step.
    ("slowmo", "top_k", 2, "cosine", np.float64),
    *(
        (
            method,
            list(CHANNELS)[i % 3],
            WORKERS[i % 4],
            ["constant", "cosine"][i // 3 % 2],
            [np.float64, np.float32][i // 4 % 2],
        )
        for i, method in enumerate(PAPERS)
    ),
]


@pytest.mark.parametrize(("method", "compressor", "workers", "rate", "dtype"), TURNS)
def test_every_method_equals_its_paper(method, compressor, workers, rate, dtype):
    assert_equals_the_paper(method, compressor, workers, rate, dtype)


# A Latin square for each method: any two of its settings meet once. In single precision
# once, but for the periodic methods, which share their branch and their channel.
SQUARE = [
    (compressor, (1, 5, 8)[(i + j) % 3], rate, np.float64)
    for i, compressor in enumerate(CHANNELS)
    for j, rate in enumerate(RATES)
]
PERIODIC = [
    *list(PAPERS)[list(PAPERS).index("local_sgd") : list(PAPERS).index("dist_ef_sgdm")],
    "sparse_loco",
]
SETTINGS = [
    *((method, *setting) for method in PAPERS for setting in SQUARE),
    *(
        (method, list(CHANNELS)[i % 3], 8, "from and to zero", np.float32)
        for i, method in enumerate(name for name in PAPERS if name not in PERIODIC)
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "compressor", "workers", "rate", "dtype"), SETTINGS)
def test_every_method_equals_its_paper_in_all_settings(
    method, compressor, workers, rate, dtype
):
    assert_equals_the_paper(method, compressor, workers, rate, dtype)


def test_the_turns_meet_everything():
    settings = [set(values) for values in zip(*TURNS, strict=True)]
    assert [len(values) for values in settings] == [len(PAPERS), 3, 4, 2, 2]
    assert len({(workers, dtype) for _, _, workers, _, dtype in TURNS}) == 8
    assert len({(compressor, rate) for _, compressor, _, rate, _ in TURNS}) == 6


def test_in_the_square_any_two_settings_meet():
    for one, other in itertools.combinations(range(3), 2):
        assert len({(row[one], row[other]) for row in SQUARE}) == 9


CENTRAL = {"ef_momentum", "gmc", "gmc_plus", "dgc", "cser", "def_a", "saef", "slowmo"}


def of_each(weights: np.ndarray, workers: int) -> np.ndarray:
    """The weights of every worker, [steps + 1, workers, d], from those of a run."""
    if weights.ndim == 2:
        weights = weights[:, None]
    return np.broadcast_to(weights, (len(weights), workers, D))


def compared() -> Compressor:
    """The selection of `top_k` by comparing all pairs, sent densely.

    It is elementwise, so that XLA fuses it with all that is around it.
    """

    def encode(key, x):
        del key
        size, place = jnp.abs(x), jnp.arange(x.size)
        tied = (size[:, None] == size[None]) & (place[:, None] > place[None])
        before = jnp.sum((size[:, None] < size[None]) | tied, axis=1)
        kept = before < math.ceil(RATIO * x.size)
        return jnp.where(kept, x, 0), jnp.where(kept, 0, x)

    def decode(key, messages, d):
        del key, d
        return messages.sum(axis=0)

    return Compressor(encode, decode)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method in CENTRAL else pytest.mark.slow)
        for method in PAPERS
        if method != "easgd"  # Twice as many workers feel springs half as strong.
    ],
)
def test_neither_the_order_of_workers_matters_nor_that_each_is_there_twice(method):
    """Under a rate that starts and ends at zero, which makes no NaN."""
    order = [1, 0, 0, 1]
    pair = problem(2)
    mixed = problems.Problem(
        hessians=pair.hessians[order],
        targets=pair.targets[order],
        noise=pair.noise[:, order],
        start=pair.start,
    )
    ours, paper, share = PAPERS[method]
    rate, eta = RATES["from and to zero"]
    weights, states = harness.run(ours(rate, all_gather(compared())), mixed)
    expected, residuals = paper(pair, eta, references.largest(RATIO))
    ours, theirs = of_each(weights, 4), of_each(expected, 2)[:, order]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    if share:
        np.testing.assert_allclose(
            harness.residual(states), share * residuals[:, order], rtol=1e-8, atol=1e-8
        )


@pytest.mark.parametrize(
    "method", [name for name in PAPERS if name not in {"ef_sgd", "double_squeeze"}]
)
@pytest.mark.parametrize("momentum", [-0.1, 1.0, math.nan])
def test_momentum_must_fade(method, momentum):
    with pytest.raises(ValueError, match=r"`\w*(momentum|decay)` must be in \[0, 1\)"):
        PAPERS[method].ours(0.1, CHANNELS["top_k"], momentum=momentum)


@every_method
@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_a_learning_rate_is_finite_and_not_negative(method, rate):
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        PAPERS[method].ours(rate, CHANNELS["top_k"])


@every_method
def test_bfloat16_stays_bfloat16_and_is_remembered_in_float32(method):
    tx = PAPERS[method].ours(PEAK, CHANNELS["top_k"])
    params = jax.tree.map(lambda x: x.astype("bfloat16"), problems.tree(jnp.ones(D)))
    gradients = jax.tree.map(lambda x: jnp.stack([x, x]), params)

    @functools.partial(jax.vmap, axis_name="workers", in_axes=(None, None, 0))
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    before = params, tx.init(params)
    after = jax.eval_shape(step, *before, gradients)

    def dtypes(tree):
        return jax.tree.map(lambda leaf: leaf.dtype, tree)

    chex.assert_trees_all_equal(dtypes(after), dtypes(before))
    for leaf in jax.tree.leaves(after[1]):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            assert leaf.dtype == np.float32


@pytest.mark.parametrize("method", ["gmc", "cser", "def_a", "slowmo"])
def test_floats_of_8_bits_are_remembered_in_float32(method):
    """JAX mixes them with no other floats by itself: neither does a method."""
    tx = PAPERS[method].ours(PEAK, CHANNELS["top_k"])
    params = problems.tree(jnp.ones(D))
    params["kernel"] = params["kernel"].astype("float8_e4m3fn")

    @functools.partial(jax.vmap, axis_name="workers", in_axes=(None, None, 0))
    def update(params, state, gradients):
        point = gmc_jax.query(state, params)
        return point, *tx.update(gradients, state, params)

    state, gradients = tx.init(params), jax.tree.map(lambda x: x[None], params)
    point, updates, after = jax.eval_shape(update, params, state, gradients)
    assert point["kernel"].dtype == "float8_e4m3fn"
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    for leaf, was in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert leaf.dtype == was.dtype != "float8_e4m3fn"


def test_the_two_forms_of_algorithm_1_are_the_same():
    """The momentum as a difference of weights, and as what was last sent."""
    for (_, eta), workers in itertools.product(RATES.values(), (1, 5)):
        chosen = references.largest(RATIO)
        printed = references.gmc(problem(workers), eta, chosen)
        stored = references.gmc_stored(problem(workers), eta, chosen)
        np.testing.assert_allclose(printed[0], stored[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(printed[1], stored[1], rtol=0, atol=1e-9)
