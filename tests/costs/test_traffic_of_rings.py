"""Tests of the closed forms against rings that are simulated message by message."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import Link, all_gather, exact, link_traffic, top_k

LINK = Link(latency=0.3, bandwidth=7.0)


def pass_round(clocks: np.ndarray, size: float) -> np.ndarray:
    """Each worker sends to the next one and waits for the message of the previous."""
    arrives = np.roll(clocks + LINK.latency + size / LINK.bandwidth, 1)
    return np.maximum(clocks + size / LINK.bandwidth, arrives)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_ring_of_messages_reduces_in_the_time_of_the_closed_form(workers):
    """In the first round shares are summed, in the second the sums are passed on."""
    each = 1000 // workers
    vectors = np.random.default_rng(0).normal(size=(workers, workers, each))
    values, clocks = vectors.copy(), np.zeros(workers)
    for turn in range(2 * (workers - 1)):
        sending = [(values[k], (k - turn) % workers) for k in range(workers)]
        messages = [(share, vector[share].copy()) for vector, share in sending]
        for receiver in range(workers):
            share, message = messages[receiver - 1]
            summing = turn < workers - 1
            values[receiver, share] = message + summing * values[receiver, share]
        clocks = pass_round(clocks, 4 * each)
    np.testing.assert_allclose(values, np.stack([vectors.sum(axis=0)] * workers))

    params = jax.ShapeDtypeStruct((workers * each,), jnp.float32)
    ours = link_traffic(exact(), params, workers).seconds(LINK)
    np.testing.assert_allclose(clocks, ours, rtol=1e-12)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_ring_of_messages_gathers_in_the_time_of_the_closed_form(workers):
    """Each worker passes on what it received last: the values, then the indices."""
    clocks = np.zeros(workers)
    for _ in ("values", "indices"):
        received = [[k] for k in range(workers)]
        for _ in range(workers - 1):
            last = [senders[-1] for senders in received]
            for receiver, senders in enumerate(received):
                senders.append(last[receiver - 1])
            clocks = pass_round(clocks, 4 * 100)
        assert all(sorted(senders) == list(range(workers)) for senders in received)

    params = jax.ShapeDtypeStruct((1000,), jnp.float32)
    ours = link_traffic(all_gather(top_k(0.1)), params, workers).seconds(LINK)
    np.testing.assert_allclose(clocks, ours, rtol=1e-12)
