"""Against the NumPy code of CHOCO-SGD's authors: what it did once, step by step.

It has D-PSGD and DCD-PSGD beside that method. tests/support/data/choco.md says how its
trajectories were recorded. Its random coordinates are played back.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    Compressor,
    adapt_then_combine,
    choco_sgd,
    compressed_gossip,
    dcd_psgd,
    dense,
    gossip,
    gossip_differences_overlapped,
    top_k,
    topologies,
)
from tests.support import problems
from tests.support.recordings import recordings, split
from tests.support.recordings import trained as trained_on

TOPOLOGIES = {
    "choco torus": topologies.torus(3, 3),
    "choco whole": topologies.complete(4),
    "choco random": topologies.ring(5),
}
RING = topologies.ring(4)
SHAPES = {"bias": (4,), "kernel": (2, 4)}


def recorded(run: str, what: str) -> np.ndarray:
    return recordings("choco")[f"{run}/{what}"]


def played_back(run: str, scale: float) -> Compressor:
    """Sends the entries at the recorded places; the key says whose turn it is."""
    places = recorded(run, "places").astype(np.int32)

    def key_of(call, worker):
        key = jax.random.fold_in(jax.random.key(0), call)
        return jax.random.key_data(jax.random.fold_in(key, worker))

    def encode(key, x):
        calls, workers = (jnp.arange(n) for n in places.shape[:2])
        known = jax.vmap(jax.vmap(key_of, (None, 0)), (0, None))(calls, workers)
        same = (known == jax.random.key_data(key)[None, None]).all(axis=-1)
        own = jnp.where(same[..., None], places, 0).sum(axis=(0, 1))
        sent = jnp.zeros_like(x).at[own].set(scale * x[own])
        return (sent,), x - sent

    return Compressor(encode, lambda key, messages, like: messages[0].sum(axis=0))


def method(run: str) -> optax.GradientTransformation:
    """The method of a run, with the settings that it was recorded with."""
    d = recordings("choco")["inputs"].shape[1]
    topology = TOPOLOGIES.get(run, RING)

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        return jnp.asarray(recorded(run, "rates"))[step]

    if run == "plain":
        return optax.chain(optax.sgd(rate), adapt_then_combine(gossip(topology)))
    if run == "dcd random":
        unbiased = played_back(run, d / recorded(run, "kept").item())
        return dcd_psgd(rate, compressed_gossip(topology, unbiased))
    if run == "choco whole":
        compressor = dense()
    elif run == "choco random":
        compressor = played_back(run, 1.0)
    else:
        compressor = top_k(recorded(run, "kept").item() / d)
    consensus_step = recorded(run, "consensus_lr").item()
    return choco_sgd(
        rate, gossip_differences_overlapped(topology, compressor, consensus_step)
    )


def trained(run: str, from_start: bool) -> tuple[np.ndarray, Any]:
    """Weights, [steps + 1, workers, d], and the last state.

    Estimates begin at zero, or at the start, as theirs do.
    """
    drawn = recorded(run, "samples").astype(int)
    batches = recordings("choco")["inputs"][drawn], recordings("choco")["labels"][drawn]
    regularizer = recordings("choco")["regularizer"].item()

    def loss(params, batch):
        x = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        a, y = batch
        return jnp.logaddexp(0, -y * (a @ x)) + regularizer * (x @ x) / 2

    start = split(recorded(run, "weights")[0, 0], SHAPES)

    def begin(state):
        return optax.tree.set(state, estimate=start) if from_start else state

    return trained_on(method(run), start, batches, jax.grad(loss), begin)


@pytest.mark.parametrize(
    "run",
    [
        "choco largest",
        pytest.param("dcd random", marks=pytest.mark.slow),
        pytest.param("plain", marks=pytest.mark.slow),
        pytest.param("choco random", marks=pytest.mark.slow),
        pytest.param("choco torus", marks=pytest.mark.slow),
        pytest.param("choco whole", marks=pytest.mark.slow),
    ],
)
def test_the_authors_code_did_the_same(run):
    """Of theirs, CHOCO's estimates begin at the start, which all workers share."""
    is_choco = run.startswith("choco")
    ours, states = trained(run, from_start=is_choco)
    expected = recorded(run, "weights")
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13)
    assert np.ptp(expected[-1], axis=0).max() > 0.3
    if is_choco:
        kept: Any = optax.tree.get(states, "estimate")
        kept = problems.flat(kept, leading=2)[-1]
        theirs = recorded(run, "estimates")
        np.testing.assert_allclose(kept, theirs, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_estimates_that_begin_at_zero_are_others():
    run = "choco largest"
    ours, _ = trained(run, from_start=False)
    expected = recorded(run, "weights")
    np.testing.assert_allclose(ours[:2], expected[:2], rtol=0, atol=1e-13)
    assert np.abs(ours - expected).max() > 0.1
