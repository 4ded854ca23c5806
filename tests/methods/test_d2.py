"""Tests of D2: its paper, its mean under every schedule, and the exact optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    d2,
    d_psgd,
    disagreement,
    exact_diffusion,
    topologies,
)
from tests.support import harness, problems, references_gossip
from tests.support.virtual_iterates import RATE, SCHEDULE, problem, rate_at

LAZY = topologies.lazy(topologies.ring(8))
RATES = {"constant": (RATE, lambda t: RATE), "cosine": (SCHEDULE, rate_at)}


@pytest.mark.parametrize(
    ("topology", "momentum", "nesterov", "rate"),
    [
        (topologies.ring(1), 0.9, False, "constant"),
        (topologies.ring(2), 0.0, False, "cosine"),
        (topologies.ring(5), 0.9, True, "constant"),
        (LAZY, 0.0, False, "cosine"),
    ],
)
def test_it_equals_its_paper(topology, momentum, nesterov, rate):
    ours, eta = RATES[rate]
    everyone = problems.quadratics(topology.workers)
    tx = d2(ours, topology, momentum=momentum, nesterov=nesterov)
    weights, _ = harness.run(tx, everyone)
    expected = references_gossip.d2(
        everyone, eta, topology.rounds[0], momentum, nesterov
    )
    np.testing.assert_allclose(
        weights.reshape(expected.shape), expected, rtol=0, atol=1e-10
    )
    assert np.abs(expected[-1] - expected[0]).max() > 0.1


def warm_up(t):
    """From 0, and back to it."""
    return RATE * jnp.clip(jnp.minimum(t - 2.0, 40.0 - t) / 10, 0, 1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_mean_moves_by_the_mean_step_under_every_schedule(momentum):
    weights, _ = harness.run(
        d2(warm_up, topologies.ring(5), momentum=momentum),
        everyone := problems.quadratics(5),
    )
    m, steps = 0, []
    for t in range(everyone.steps):
        g = [everyone.gradient(k, t, weights[t, k]) for k in range(5)]
        m = momentum * m + np.mean(g, axis=0)
        steps.append(-RATE * min(max(min(t - 2, 40 - t) / 10, 0), 1) * m)
    moved = np.diff(weights.mean(axis=1), axis=0)
    np.testing.assert_allclose(moved, steps, rtol=0, atol=1e-13)
    assert np.ptp(weights, axis=1).max() > 0.01


def test_it_comes_to_the_optimum_where_d_psgd_stalls():
    """Quadratics that disagree, at a constant rate, over 1,500 steps."""
    still = problems.quadratics(8, d=6)._replace(noise=np.zeros((1500, 8, 6)))

    def furthest(tx):
        weights, _ = harness.run(tx, still)
        return np.linalg.norm(weights[-1] - still.optimum, axis=1).max()

    assert furthest(d2(0.1, LAZY)) < 1e-10
    assert furthest(d_psgd(0.1, LAZY)) > 0.1


def test_on_the_complete_graph_it_is_sgd():
    complete, _ = harness.run(d2(SCHEDULE, topologies.complete(4)), problem())
    sgd = references_gossip.d_psgd(
        problem(), rate_at, topologies.complete(4).rounds, adapt_first=True
    )
    np.testing.assert_allclose(complete, sgd, rtol=0, atol=1e-12)


def modes(smallest: float) -> float:
    """How fast the mode of an eigenvalue grows: y <- smallest (2 y - y_before)."""
    return max(abs(np.roots([1, -2 * smallest, smallest])))


def test_the_border_is_where_modes_grow():
    assert modes(-0.32) < 1 < modes(-0.35)
    assert modes(-1 / 3) == pytest.approx(1)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (topologies.ring(8), r"got -0.3333; .*`topologies.lazy.* 0.3333"),
        (topologies.ring(8, self_weight=0.1), r"got -0.8000; .* eigenvalue is 0.1000"),
        (topologies.exponential(8), "must be symmetric"),
        (topologies.random_matchings(4), "must have one round, got 16"),
        (
            topologies.from_adjacency(np.kron(np.eye(2), np.ones((2, 2)))),
            "must connect",
        ),
        (topologies.pushing([[0, 1, 1], [0, 0, 0], [0, 0, 0]]), "doubly stochastic"),
    ],
)
def test_a_topology_that_would_not_do_is_an_error(topology, message):
    with pytest.raises(ValueError, match=message):
        d2(0.1, topology)


def test_rates_and_momenta_are_checked():
    with pytest.raises(ValueError, match="`momentum`"):
        d2(0.1, LAZY, momentum=1.0)
    with pytest.raises(ValueError, match="`learning_rate`"):
        d2(np.nan, LAZY)
    tx = d2(0.1, LAZY)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(np.ones(2), tx.init(np.ones(2)))
    assert isinstance(tx, optax.GradientTransformation)


def test_at_a_constant_rate_it_is_the_form_of_the_paper():
    """Under a warm-up that one moves the mean by something else than the mean step."""
    lazy = topologies.lazy(topologies.ring(4))
    ours, _ = harness.run(d2(RATE, lazy), problem())
    printed = references_gossip.d2_of_gradients(
        problem(), lambda t: RATE, lazy.rounds[0]
    )
    np.testing.assert_allclose(ours, printed, rtol=0, atol=1e-10)

    def warm(t):
        return RATE * min(t / 10, 1)

    steps = references_gossip.d2(problem(), warm, lazy.rounds[0])
    gradients = references_gossip.d2_of_gradients(problem(), warm, lazy.rounds[0])
    assert np.abs(steps - gradients).max() > 0.1


@pytest.mark.parametrize(("weight", "grows"), [(0.35, False), (0.0, True)])
def test_below_the_border_it_diverges(weight, grows):
    """Which is why `d2` refuses: (shift + shift^-1) / 2 has the eigenvalue -1."""
    channel = disagreement(topologies.ring(4, self_weight=weight))
    still = problems.quadratics(4)._replace(noise=np.zeros((300, 4, 20)))
    tx = optax.chain(optax.sgd(1e-3), exact_diffusion(channel))
    weights, _ = harness.run(tx, still)
    assert (np.ptp(weights[-1], axis=0).max() > 1e6) == grows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_does_not_lead_it_astray(dtype):
    """Whose mean is held by nothing but gradients, over many small steps."""
    targets = np.random.default_rng(0).normal(5, 2, size=(8, 3)).astype(np.float32)
    tx = d2(1e-3 if dtype == "float32" else 0.1, LAZY)
    steps = 20_000 if dtype == "float32" else 500

    def worker(target):
        params = jnp.full(3, 4.0, dtype)

        def step(state, _):
            params, opt_state = state
            updates, opt_state = tx.update(params - target, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        state = params, tx.init(params)
        return jax.lax.scan(step, state, length=steps)[0][0]

    ends = jax.jit(jax.vmap(worker, axis_name="workers"))(targets.astype(dtype))
    off = np.abs(np.asarray(ends, np.float32).mean(axis=0) - targets.mean(axis=0))
    assert off.max() < (1e-3 if dtype == "float32" else 0.1)


def test_as_printed_rounding_leads_it_astray():
    """W (2 x - x_prev + u - u_prev): each rounding of x is a velocity for ever."""
    targets = np.random.default_rng(0).normal(5, 2, size=(8, 3)).astype(np.float32)
    mixing = LAZY.rounds[0].astype(np.float32)
    rate = np.float32(1e-3)
    x = np.full((8, 3), 4.0, np.float32)
    u = -rate * (x - targets)
    x, x_prev, u_prev = mixing @ (x + u), x, u
    for _ in range(20_000):
        u = -rate * (x - targets)
        x, x_prev, u_prev = mixing @ (2 * x - x_prev + u - u_prev), x, u
    off = np.abs(x.mean(axis=0, dtype=np.float64) - targets.mean(axis=0))
    assert off.max() > 0.1
