"""Tests of `relative_cost` against the paper's count, entry by entry, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    all_reduce,
    averaged,
    count_entries,
    exact,
    gmc,
    random_block,
    relative_cost,
    skip_nonfinite,
    top_k,
)
from tests.support.small_model import WORKERS, D, gradients, params, step_of


def train_counted(tx, runner="simulate", steps=5):
    """The state of `tx` after some steps, and the mean of each step."""
    batches = gradients(steps=steps)
    state = params(), tx.init(params())
    first = jax.tree.map(lambda x: x[0], batches)

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        return (params, opt_state), updates

    if runner == "simulate":
        train, state = gmc_jax.simulate(step, state, first, WORKERS)
    else:
        train, state = gmc_jax.distribute(step, state, first)
    means = []
    for t in range(steps):
        state, out = train(state, jax.tree.map(lambda x, t=t: x[t], batches))
        means.append(jax.tree.map(lambda x: np.array(x[0]), out))
    return state[1], means


def vectors(steps: int) -> np.ndarray:
    """The gradients, flat: [steps, workers, D]."""
    leaves = jax.tree.leaves(gradients(steps=steps))
    return np.concatenate(
        [x.reshape(steps, WORKERS, -1) for x in leaves], axis=-1
    ).astype(np.float64)


def paper(steps: int, s: int) -> float:
    """The RCC of error feedback with top-s, counted entry by entry."""
    residuals = np.zeros((WORKERS, D))
    up = down = 0
    for gradient in vectors(steps):
        corrected = residuals + gradient
        mean = np.zeros(D)
        for k in range(WORKERS):
            places = np.argsort(-np.abs(corrected[k]), kind="stable")[:s]
            up += len(places)
            mean[places] += corrected[k, places] / WORKERS
            residuals[k] = corrected[k]
            residuals[k, places] = 0
        down += np.count_nonzero(mean)
    return (2 * up + 2 * WORKERS * down) / (2 * D * WORKERS * steps)


@pytest.mark.parametrize(
    "runner", ["simulate", pytest.param("distribute", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("ratio", "s"), [(0.1, 3), (0.3, 9), (1.0, 30)])
def test_the_cost_of_top_k_is_that_of_the_paper(ratio, s, runner):
    tx = gmc_jax.error_feedback(count_entries(all_gather(top_k(ratio))))
    state, _ = train_counted(tx, runner)
    cost = relative_cost(state)
    assert cost == pytest.approx(paper(5, s), rel=1e-12)
    assert 2 * s / D <= cost <= (1 + WORKERS) * s / D
    # Workers choose some coordinates in common, but not all.
    if s < D:
        assert 2 * s / D < cost < (1 + WORKERS) * s / D


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_messages_without_indices_count_once(runner):
    """A block costs exactly s/d, an exact mean exactly 1."""
    state, _ = train_counted(
        gmc(0.1, count_entries(all_reduce(random_block(0.1)))), runner
    )
    assert relative_cost(state) == 3 / D
    state, _ = train_counted(gmc(0.1, count_entries(exact())), runner)
    assert relative_cost(state) == 1


def test_the_costs_and_sizes_of_several_channels_add_up():
    """The 10 biases are sent densely, the 20 kernel entries as a block of 2."""
    tx = optax.partition(
        {
            "dense": averaged(count_entries(exact())),
            "block": averaged(count_entries(all_reduce(random_block(0.1)))),
        },
        {"bias": "dense", "kernel": "block"},
    )
    state, _ = train_counted(tx)
    assert relative_cost(state) == pytest.approx((10 + 2) / D, rel=1e-12)

    # Messages with indices count twice, dense ones beside them once.
    tx = optax.partition(
        {
            "dense": averaged(count_entries(exact())),
            "top": averaged(count_entries(all_gather(top_k(0.1)))),
        },
        {"bias": "dense", "kernel": "top"},
    )
    state, means = train_counted(tx)
    down = np.mean([np.count_nonzero(mean["kernel"]) for mean in means])
    assert relative_cost(state) == pytest.approx((10 + 2 + down) / D, rel=1e-12)


def test_a_step_that_averages_twice_counts_as_one_step():
    """The second channel averages at every other step."""
    block, dense = all_reduce(random_block(0.1)), exact()

    def cost(*channels):
        tx = optax.chain(averaged(channels[0]), accumulate(averaged(channels[1]), 2))
        return relative_cost(train_counted(tx, steps=4)[0])

    both = 3 / D + 1 / 2
    extra = cost(count_entries(block), count_entries(dense, extra=True))
    assert extra == pytest.approx(both, rel=1e-15)
    # Without `extra` each call of the second channel counts as a step.
    assert cost(count_entries(block), count_entries(dense)) == pytest.approx(
        both / 1.5, rel=1e-15
    )


def test_channels_that_take_turns_count_their_own_steps():
    """Three dense steps are followed by two steps of blocks."""
    turns = gmc_jax.join_channels(
        [count_entries(exact()), count_entries(all_reduce(random_block(0.1)))], [3]
    )
    state, _ = train_counted(averaged(turns))
    assert relative_cost(state) == pytest.approx((3 + 2 * 3 / D) / 5, rel=1e-15)


def test_an_extra_channel_alone_is_an_error():
    state, _ = train_counted(averaged(count_entries(exact(), extra=True)))
    with pytest.raises(ValueError, match="count at least one channel without `extra`"):
        relative_cost(state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: optax.chain(optax.clip(1.0), tx),
        lambda tx: accumulate(tx, 2),
        skip_nonfinite,
        lambda tx: optax.masked(tx, {"bias": True, "kernel": True}),
    ],
)
def test_the_counts_are_found_in_any_state(wrap):
    tx = wrap(gmc(0.1, count_entries(all_reduce(random_block(0.1)))))
    state, _ = train_counted(tx)
    assert relative_cost(state) == 3 / D
    assert relative_cost((params(), {"any": [state, None]})) == 3 / D


def test_counts_beyond_32_bits_are_read_whole():
    """The counts are halves of 32 bits, of one or of two workers."""
    state = count_entries(all_gather(top_k(0.1))).init(params())
    up, down, dense = 3 * 2**32 + 5, 2**33, 7 * 2**34 + 2**31

    def halves(*numbers):
        counts = [divmod(number, 2**32) for number in numbers]
        return jnp.array(counts if len(counts) > 1 else counts[0], jnp.uint32)

    state = type(state)(
        halves(up, up + 2**32), halves(down), halves(dense), state.indexed, state.inner
    )
    expected = (up + 2**31 + down) / dense
    assert relative_cost(state) == pytest.approx(expected, rel=1e-15)


def test_counting_goes_on_beyond_32_bits():
    """The counts of a long run carry into the upper half."""
    channel = count_entries(exact())
    tx = averaged(channel)
    full = jnp.array([1, 2**32 - 7], jnp.uint32)
    begun = channel.init(params())
    begun = type(begun)(full, full, full, begun.indexed, begun.inner)
    train, state = gmc_jax.simulate(
        step_of(tx), (params(), begun), gradients(), WORKERS
    )
    state, _ = train(state, gradients())
    np.testing.assert_array_equal(state[1].up, [2, D - 7])
    assert relative_cost(state) == 1


def test_without_counts_there_is_no_cost():
    tx = gmc(0.1, all_gather(top_k(0.1)))
    with pytest.raises(
        ValueError, match=r"must hold the counts.*`count_entries\(channel\)`"
    ):
        relative_cost(tx.init(params()))
    tx = gmc(0.1, count_entries(all_gather(top_k(0.1))))
    with pytest.raises(ValueError, match="must have counted at least one step"):
        relative_cost(tx.init(params()))
