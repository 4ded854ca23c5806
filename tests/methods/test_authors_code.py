"""Against the reference code of DEF: what it did once, step by step.

tests/support/data/README.md says how its trajectories were recorded. Its random blocks
are played back; where it sends the largest magnitudes, so do we.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    Channel,
    Compressor,
    all_gather,
    all_reduce,
    cser,
    def_a,
    drop_all,
    ef_momentum,
    error_feedback,
    gmc_server_momentum,
    saef,
    top_k,
)
from gmc_jax.compressors._shared_support import shared_indices
from tests.support import harness, problems

FILE = pathlib.Path(__file__).parents[1] / "support" / "data" / "def_trajectories.npz"
RATIO, RESET_RATIO, MOMENTUM = 0.25, 0.5, 0.9


@functools.cache
def recordings() -> dict[str, np.ndarray]:
    with np.load(FILE) as file:
        return dict(file)


def recorded(run: str, what: str) -> np.ndarray:
    return recordings()[f"{run}/{what}"]


def rate(run: str) -> Callable:
    """The schedule of a run: it falls to 0.4 of itself half way, but for "pef"."""
    return lambda step: jnp.asarray(recorded(run, "rates"))[step]


@functools.cache
def keys(calls: int = 20, leaves: int = 2) -> np.ndarray:
    """What a channel with seed 0 gives a shared compressor to draw from."""

    def key_of(call, leaf):
        key = jax.random.fold_in(jax.random.key(0), call)
        return jax.random.key_data(jax.random.fold_in(key, leaf))

    every_leaf = jax.vmap(key_of, (None, 0))
    every_call = jax.jit(jax.vmap(every_leaf, (0, None)))
    return np.asarray(every_call(np.arange(calls), np.arange(leaves)))


def played_back(starts: np.ndarray, ratio: float) -> Compressor:
    """The blocks that start at [calls, leaves] in turn; the key says which it is."""
    known = keys()[: len(starts)]

    def draw(key, d):
        same = (known == jax.random.key_data(key)[None, None]).all(axis=-1)
        start = jnp.sum(jnp.where(same, starts.astype(np.int32), 0))
        return (start + jnp.arange(int(ratio * d))) % d

    return shared_indices(draw)


def channel(run: str, starts: str = "starts", ratio: float = RATIO) -> Channel:
    """What a run was recorded with; every tensor is compressed by itself."""
    if "largest" in run:
        return all_gather(top_k(ratio), per_leaf=True)
    return all_reduce(played_back(recorded(run, starts), ratio), per_leaf=True)


class Ours(NamedTuple):
    """What we do on the problem of a run."""

    weights: np.ndarray  # [steps + 1, workers, d]
    points: np.ndarray  # [steps + 1, workers, d], where gradients are asked for
    evaluated: Callable[[], np.ndarray]  # [d], where the model is evaluated at the end


def reproduce(
    tx: optax.GradientTransformation, run: str, points: np.ndarray | None = None
) -> Ours:
    """Trains as they did, with gradients at our own points or at those given."""
    arrays = recordings()
    steps, workers = len(arrays["noise"]), int(recorded(run, "workers"))
    given = np.zeros((steps, workers, arrays["start"].size))
    batches = (
        np.tile(arrays["hessians"][:workers].astype(float), (steps, 1, 1, 1)),
        np.tile(arrays["targets"][:workers].astype(float), (steps, 1, 1)),
        arrays["noise"][:, :workers].astype(float),
        given if points is None else points[:-1],
    )

    def step(state, batch):
        params, opt_state = state
        hessian, target, noise, given = batch
        asked = gmc_jax.query(opt_state, params)
        point = asked if points is None else problems.tree(given)
        flat = jnp.concatenate([x.ravel() for x in jax.tree.leaves(point)])
        grads = problems.tree(hessian @ (flat - target) + noise)
        # The point in the place of the parameters: their weight decay is taken there.
        updates, opt_state = tx.update(grads, opt_state, point)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (params, gmc_jax.query(opt_state, params))

    with jax.enable_x64(True):
        params = problems.tree(arrays["start"].astype(float))
        start = params, tx.init(params)
        states, seen = harness.history(step, start, batches)

    def evaluated():
        first = jax.tree.map(lambda x: x[0], batches)
        params, opt_state = jax.tree.map(lambda x: x[-1], states)
        with jax.enable_x64(True):
            layout = gmc_jax.layout(step, start, first, workers)
            return problems.flat(gmc_jax.evaluate(opt_state, params, layout))

    def from_start(tree):
        vectors = problems.flat(tree, leading=2)
        return np.concatenate([np.broadcast_to(before, vectors[:1].shape), vectors])

    before = problems.flat(params)
    return Ours(from_start(seen[0]), from_start(seen[1]), evaluated)


def decayed(
    tx: optax.GradientTransformation, run: str
) -> optax.GradientTransformationExtraArgs:
    """The method behind the weight decay of a run."""
    return optax.chain(optax.add_decayed_weights(float(recorded(run, "decay"))), tx)


def assert_equal(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def assert_all_at(weights: np.ndarray, theirs: np.ndarray) -> None:
    """All workers' weights [steps + 1, workers, d] are those recorded once."""
    assert_equal(weights, np.broadcast_to(theirs[:, None], weights.shape))


@pytest.mark.parametrize("run", ["def", "def whole", "def largest"])
def test_def(run):
    """They judge x_t less the mean residual, which we call DEF-A."""
    tx = def_a(
        rate(run),
        channel(run),
        momentum=MOMENTUM,
        detach=float(recorded(run, "coeff")),
    )
    ours = reproduce(decayed(tx, run), run)
    assert_all_at(ours.weights, recorded(run, "weights"))
    assert_equal(ours.points, recorded(run, "points"))
    assert_equal(ours.evaluated(), recorded(run, "judged"))


def test_saef_without_a_period():
    """They judge x_t."""
    run = "saef largest never"
    tx = saef(rate(run), channel(run), momentum=MOMENTUM)
    ours = reproduce(decayed(tx, run), run)
    assert_all_at(ours.weights, recorded(run, "weights"))
    assert_equal(ours.points, recorded(run, "points"))
    assert_equal(ours.evaluated(), recorded(run, "judged"))


@pytest.mark.parametrize("run", ["saef", "saef largest"])
def test_saef_but_for_the_gradients_after_an_average(run):
    """They take those ahead by the residuals of before, we by their mean.

    Given their gradients, all else is the same.
    """
    period, theirs = int(recorded(run, "period2")), recorded(run, "points")
    tx = saef(rate(run), channel(run), momentum=MOMENTUM, period=period)
    ours = reproduce(decayed(tx, run), run, theirs)
    assert_all_at(ours.weights, recorded(run, "weights"))
    after = np.arange(len(theirs)) % period == 0
    assert_equal(ours.points[~after], theirs[~after])
    mean = np.broadcast_to(theirs.mean(axis=1, keepdims=True), theirs.shape)
    assert_equal(ours.points[after], mean[after])
    assert np.abs(mean - theirs)[after][1:].max() > 0.1


@pytest.mark.parametrize("run", ["cser", "cser silent", "cser largest"])
def test_cser(run):
    sends = drop_all() if run == "cser silent" else channel(run)
    resets = channel(run, "reset starts", RESET_RATIO)
    tx = cser(
        rate(run),
        sends,
        resets,
        period=int(recorded(run, "period2")),
        momentum=MOMENTUM,
    )
    ours = reproduce(decayed(tx, run), run)
    assert_equal(ours.weights, recorded(run, "weights"))


@pytest.mark.parametrize("run", ["ef", "ef largest"])
def test_ef_momentum(run):
    tx = ef_momentum(rate(run), channel(run), momentum=MOMENTUM)
    ours = reproduce(decayed(tx, run), run)
    assert_all_at(ours.weights, recorded(run, "weights"))


def test_pef_is_gmc_with_server_momentum_at_a_constant_rate():
    tx = gmc_server_momentum(rate("pef"), channel("pef"), momentum=MOMENTUM)
    ours = reproduce(tx, "pef")
    assert_all_at(ours.weights, recorded("pef", "weights"))


def test_pef_under_a_schedule_is_a_chain_of_its_own():
    """The residual is in units of steps, the momentum behind it in those of gradients.

    Weight decay stands behind the channel and is not compressed.
    """
    run = "pef largest"
    schedule = rate(run)
    after = [
        optax.add_decayed_weights(float(recorded(run, "decay"))),
        optax.trace(MOMENTUM),
        optax.scale_by_learning_rate(schedule),
    ]
    tx = optax.chain(
        optax.scale_by_schedule(schedule),
        error_feedback(channel(run)),
        optax.scale_by_schedule(lambda step: 1 / schedule(step)),
        *after,
    )
    ours = reproduce(tx, run)
    assert_all_at(ours.weights, recorded(run, "weights"))

    # With the residual in units of gradients the two part where the rate falls.
    tx = optax.chain(error_feedback(channel(run)), *after)
    ours = reproduce(tx, run)
    falls = int(np.argmin(recorded(run, "rates"))) + 1
    theirs = recorded(run, "weights")
    assert_all_at(ours.weights[:falls], theirs[:falls])
    assert np.abs(ours.weights[falls, 0] - theirs[falls]).max() > 1e-3
