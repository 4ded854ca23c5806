"""Tests of DeMo against its paper, and its identities."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import averaged, demo, exact
from tests.support import harness, problems
from tests.support.virtual_iterates import SCHEDULE, problem


def transcription(problem, eta, decay, kept, weight_decay):
    """Chunk by chunk, of a leaf of 4 entries and one of 2 by 8; sides are at most 4."""

    def basis(size):
        return [
            [
                math.sqrt((1 if k == 0 else 2) / size)
                * math.cos(math.pi * (2 * n + 1) * k / (2 * size))
                for n in range(size)
            ]
            for k in range(size)
        ]

    def chunks(vector):
        yield vector[:4].reshape(1, 4)
        kernel = vector[4:].reshape(2, 8)
        yield kernel[:, :4]
        yield kernel[:, 4:]

    def vector(parts):
        bias, left, right = parts
        return np.concatenate([bias.ravel(), np.hstack([left, right]).ravel()])

    def forward(part):
        return np.array(basis(part.shape[0])) @ part @ np.array(basis(part.shape[1])).T

    def inverse(part):
        return np.array(basis(part.shape[0])).T @ part @ np.array(basis(part.shape[1]))

    w = problem.start
    deltas = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, momenta = [w], [np.stack(deltas)]
    for t in range(problem.steps):
        total = [np.zeros_like(part) for part in chunks(w)]
        senders = [np.zeros_like(part) for part in chunks(w)]
        for k in range(problem.workers):
            deltas[k] = decay * deltas[k] + eta(t) * problem.gradient(k, t, w)
            sent = []
            for place, part in enumerate(chunks(deltas[k])):
                q = forward(part)
                order = np.argsort(-np.abs(q).ravel(), kind="stable")
                mask = np.zeros(q.size, bool)
                mask[order[:kept]] = True
                mask = mask.reshape(q.shape)
                total[place] += np.where(mask, q, 0)
                senders[place] += mask & (q != 0)
                sent.append(inverse(np.where(mask, q, 0)))
            deltas[k] = deltas[k] - vector(sent)
        merged = [q / np.maximum(n, 1) for q, n in zip(total, senders, strict=True)]
        step = np.sign(vector([inverse(q) for q in merged]))
        w = w - eta(t) * (step + weight_decay * w)
        ws.append(w)
        momenta.append(np.stack(deltas))
    return np.stack(ws), np.stack(momenta)


RATES = {
    "constant": (0.02, lambda t: 0.02),
    "warm-up": (
        lambda t: jnp.where(
            t < 10, 0.002 * t, 0.01 * (1 + jnp.cos(jnp.pi * (t - 10.0) / 50))
        ),
        lambda t: (
            0.02 * t / 10 if t < 10 else 0.01 * (1 + math.cos(math.pi * (t - 10) / 50))
        ),
    ),
}


@pytest.mark.parametrize(
    ("rate", "workers"),
    [
        pytest.param(
            rate,
            workers,
            marks=() if (rate, workers) == ("warm-up", 3) else pytest.mark.slow,
        )
        for rate in RATES
        for workers in (1, 3, 8)
    ],
)
def test_it_equals_its_paper(rate, workers):
    everyone = problems.quadratics(workers, steps=50, d=20)
    ours, theirs = RATES[rate]
    tx = demo(ours, decay=0.9, chunk=4, kept=2, weight_decay=0.1)
    weights, states = harness.run(tx, everyone)
    expected, momenta = transcription(everyone, theirs, 0.9, 2, 0.1)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(harness.residual(states), -momenta, rtol=0, atol=1e-10)
    assert np.abs(weights[-1] - weights[0]).max() > 0.1


@pytest.mark.slow
def test_if_all_is_sent_it_is_the_sign_of_the_mean_gradient():
    ours, states = harness.run(demo(SCHEDULE, chunk=4, kept=16), problem())
    tx = optax.chain(
        averaged(exact()), optax.scale_by_sign(), optax.scale_by_learning_rate(SCHEDULE)
    )
    theirs, _ = harness.run(tx, problem())
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(harness.residual(states), 0, atol=1e-14)


@pytest.mark.slow
def test_equal_workers_do_what_one_does():
    alone = problems.quadratics(1, steps=50, d=20)
    everyone = problems.Problem(
        hessians=np.repeat(alone.hessians, 4, axis=0),
        targets=np.repeat(alone.targets, 4, axis=0),
        noise=np.repeat(alone.noise, 4, axis=1),
        start=alone.start,
    )
    tx = demo(0.02, chunk=4, kept=2)
    one, _ = harness.run(tx, alone)
    four, _ = harness.run(tx, everyone)
    np.testing.assert_allclose(one, four, rtol=0, atol=1e-12)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\]"):
        demo(0.1, decay=1.5)
    with pytest.raises(ValueError, match="`chunk` must be a whole"):
        demo(0.1, chunk=0)
    with pytest.raises(ValueError, match="`kept` must be a whole"):
        demo(0.1, kept=0)
    with pytest.raises(ValueError, match="`weight_decay` must be"):
        demo(0.1, weight_decay=-1)
    with pytest.raises(ValueError, match="`learning_rate` must be finite"):
        demo(-0.1)
