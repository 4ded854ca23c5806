"""Tests of one channel after another."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    JoinedState,
    all_gather,
    all_reduce,
    averaged,
    count_entries,
    dgc,
    error_feedback,
    exact,
    join_channels,
    random_block,
    relative_cost,
    top_k,
)
from tests.support import harness, problems
from tests.support.harness import RUNNERS, WORKERS, average, step_of, targets

D = 20
STEPS = 6
PARAMS = problems.tree(np.zeros(D, np.float32))

every_runner = pytest.mark.parametrize("runner", RUNNERS)


def trees(workers: int = 3):
    draw = np.random.default_rng(0)
    return draw.normal(size=(workers, 40)).astype(np.float32)


def warm_up(wrap=lambda channel: channel) -> gmc_jax.Channel:
    """Two calls dense, two of 6 of 20 entries, from then on of 2."""
    channels = [exact(), all_gather(top_k(0.3)), all_gather(top_k(0.1))]
    return join_channels([wrap(channel) for channel in channels], boundaries=[2, 4])


def train(runner: str, tx, steps: int = STEPS):
    """The function, its state and metrics after some steps, and a batch."""
    batches = targets(PARAMS, steps)
    batch = jax.tree.map(lambda leaf: leaf[0], batches)
    run, state = RUNNERS[runner](
        step_of(tx), (PARAMS, tx.init(PARAMS)), batch, replicated=lambda state: state[0]
    )
    for t in range(steps):
        state, _ = run(state, jax.tree.map(lambda leaf, t=t: leaf[t], batches))
    return run, state, batch


@pytest.mark.parametrize("between", [exact(), all_gather(top_k(0.2))])
def test_each_call_goes_through_the_channel_of_its_stretch(between):
    """Which is called as if it were alone: its own state moves, and no other."""
    parts = [
        all_reduce(random_block(0.1)),
        between,
        all_reduce(random_block(0.3), seed=1),
    ]
    joined = join_channels(parts, boundaries=[2, 3])
    state = joined.init(jnp.zeros(40))
    assert isinstance(state, JoinedState)
    for call, (place, before) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]):
        mean, lost, after = average(joined, trees(), state)
        own = average(parts[place], trees(), calls=before + 1)
        chex.assert_trees_all_equal((mean, lost, after.inner[place]), own)
        after = jax.tree.map(lambda leaf: leaf[0], after)
        assert after.step == call + 1
        for other in {0, 1, 2} - {place}:
            chex.assert_trees_all_equal(after.inner[other], state.inner[other])
        state = after


def test_one_channel_alone_is_itself():
    joined = join_channels([all_reduce(random_block(0.1))], boundaries=[])
    mean, lost, state = average(joined, trees(), calls=3)
    plain = average(all_reduce(random_block(0.1)), trees(), calls=3)
    chex.assert_trees_all_equal((mean, lost, state.inner[0]), plain)


def test_the_step_does_not_return_to_the_first_channel_when_it_is_full():
    channel = join_channels([exact(), all_gather(top_k(0.1))], boundaries=[1])
    state = channel.init(jnp.zeros(40))
    state = JoinedState(jnp.array(2**31 - 1, jnp.int32), state.inner)
    _, lost, after = average(channel, trees(), state, calls=2)
    assert np.any(lost)
    assert after.step.tolist() == [2**31 - 1] * 3


@pytest.mark.slow
def test_sixteen_bits_pass_through_channels_of_all_kinds():
    """The branches of a conditional return the same types."""
    half = trees().astype(jnp.bfloat16)
    for call in range(1, 6):
        mean, lost, _ = average(warm_up(), half, calls=call)
        assert mean.dtype == lost.dtype == np.float32


# What is sent and counted.


def test_its_bits_are_those_of_the_largest():
    tree = jnp.zeros(40)
    assert warm_up().bits(tree) == exact().bits(tree) == 40 * 32
    rising = join_channels([all_gather(top_k(r)) for r in (0.1, 0.3)], boundaries=[5])
    assert rising.bits(tree) == 12 * 64


def test_a_common_number_of_entries_is_its_own():
    tree = jnp.zeros(40)
    blocks = [all_reduce(random_block(0.1), seed=seed) for seed in range(2)]
    tops = [all_gather(top_k(ratio)) for ratio in (0.1, 0.3)]
    assert join_channels(blocks, [1]).entries(tree) == 4
    assert join_channels(tops, [1]).entries(tree) is None


@pytest.mark.parametrize(
    "parts",
    [
        [exact(), all_gather(top_k(0.1))],
        [all_reduce(random_block(0.1)), all_reduce(random_block(0.3))],
    ],
)
def test_what_has_no_common_count_says_to_count_each(parts):
    message = r"got \[.*\].*`join_channels\(\[count_entries\(a\), count_entries\(b\)\]"
    with pytest.raises(ValueError, match=message):
        count_entries(join_channels(parts, [1])).init(jnp.zeros(40))


def counted_by_hand(sizes: list[int]) -> float:
    """The cost of steps that send so many of the largest entries, D being all."""
    up = down = 0
    for t, size in enumerate(sizes):
        batches = jax.tree.map(lambda leaf, t=t: leaf[t], targets(PARAMS, STEPS))
        magnitudes = np.abs(problems.flat(batches, leading=1))
        places = [set(np.argsort(-mine)[:size]) for mine in magnitudes]
        weight = 0.5 if size == D else 1
        up += weight * WORKERS * size
        down += weight * WORKERS * len(set.union(*places))
    return (up + down) / (D * WORKERS * len(sizes))


def raw(channel: gmc_jax.Channel) -> optax.GradientTransformation:
    """A method that moves nothing, so that what is averaged is minus the targets."""
    return optax.chain(averaged(channel), optax.scale(0.0))


@every_runner
def test_the_costs_of_channels_counted_one_by_one_add_up(runner):
    """Dense, and costing 1, in two steps of six; then by supports."""
    _, state, _ = train(runner, raw(warm_up(count_entries)))
    cost = relative_cost(state)
    assert cost == pytest.approx(counted_by_hand([D, D, 6, 6, 2, 2]), rel=1e-12)
    assert 2 / 6 < cost < 1


def test_channels_that_all_send_indices_are_counted_together():
    parts = [all_gather(top_k(ratio)) for ratio in (0.3, 0.1)]
    _, state, _ = train("simulate", raw(count_entries(join_channels(parts, [4]))))
    expected = counted_by_hand([6, 6, 6, 6, 2, 2])
    assert relative_cost(state) == pytest.approx(expected, rel=1e-12)


def test_in_each_call_the_collectives_of_one_channel_run():
    """Every collective is in a branch, and the branch that sends most counts."""
    run, state, batch = train("distribute", dgc(0.1, warm_up()))
    sent = gmc_jax.wire_bytes(run, state, batch)
    assert (sent, sent.always) == (4 * D, 0)
    assert sorted(sent.operations) == [
        ("all-gather", 4 * 2, True, 1),
        ("all-gather", 4 * 2, True, 1),
        ("all-gather", 4 * 6, True, 1),
        ("all-gather", 4 * 6, True, 1),
        ("all-reduce", 4 * D, True, 1),
    ]


# Execution.


@functools.cache
def method() -> optax.GradientTransformationExtraArgs:
    return dgc(0.1, warm_up(count_entries))


def test_only_residuals_momenta_and_counts_differ_between_workers():
    batch = jax.tree.map(lambda leaf: leaf[0], targets(PARAMS, 1))
    state = PARAMS, method().init(PARAMS)
    plan = gmc_jax.layout(step_of(method()), state, batch, WORKERS)
    joined = optax.tree.get(plan.differs, "channel")
    assert not joined.step
    assert [inner.up for inner in joined.inner] == [False, True, True]
    assert not any(jax.tree.leaves([inner.inner for inner in joined.inner]))
    assert not any(jax.tree.leaves(plan.differs[0]))


def test_devices_agree_with_the_simulation():
    _, simulated, _ = train("simulate", method())
    _, distributed, _ = train("distribute", method())
    gmc_jax.assert_replicated(distributed)
    chex.assert_trees_all_close(
        gmc_jax.fetch(simulated), gmc_jax.fetch(distributed), rtol=1e-5, atol=1e-6
    )
    assert optax.tree.get(simulated, "channel").step == STEPS


def test_no_part_of_any_update_is_lost_when_channels_change(float64):
    params = problems.tree(np.zeros(D))
    gradients = targets(params, STEPS)
    moved, states = harness.updates(error_feedback(warm_up()), params, gradients)
    came_in = problems.flat(gradients, leading=2).mean(axis=1).sum(axis=0)
    went_out = problems.flat(moved, leading=2)[:, 0].sum(axis=0)
    residuals = harness.residual(states)
    np.testing.assert_allclose(
        went_out + residuals[-1].mean(axis=0), came_in, atol=1e-12
    )
    assert [bool(np.any(step)) for step in residuals] == [False] * 3 + [True] * 4


def conditionals(run, *args) -> int:
    """How many conditionals the compiled program has."""
    text = jax.jit(run).lower(*args).compile().as_text() or ""
    return text.count(" conditional(")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This step trains 3 separate models")
def test_seeds_by_vmap_keep_the_conditional():
    """The step is the same for all seeds, as the layout over seeds proves."""
    run, state, batch = train("simulate", method(), steps=1)
    seeds = jax.tree.map(lambda leaf: np.stack([leaf, -leaf, 2 * leaf]), batch)
    over_seeds = gmc_jax.layout(run, state, seeds, 3, axis_name="seeds")
    assert not optax.tree.get(over_seeds.differs, "channel").step
    every_seed = jax.vmap(
        run, in_axes=(over_seeds.axes, 0), out_axes=(over_seeds.axes, 0)
    )
    states = over_seeds.lay_out(state)
    assert conditionals(every_seed, states, seeds) == 1

    states, _ = jax.jit(every_seed)(states, seeds)
    state, _ = run(state, batch)
    one = jax.tree.map(
        lambda leaf, differs: leaf[0] if differs else leaf, states, over_seeds.differs
    )
    chex.assert_trees_all_close(one, state, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_step_of_each_seed_would_be_no_conditional():
    """What the test before would see if the step were batched."""
    run, state, batch = train("simulate", method(), steps=1)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    seeds = jax.tree.map(lambda leaf: np.stack([leaf] * 3), batch)
    assert conditionals(jax.vmap(run), states, seeds) == 0
    assert conditionals(run, state, batch) == 1


# Errors.


@pytest.mark.parametrize(
    ("channels", "boundaries", "message"),
    [
        ([exact()] * 2, [0], r"`boundaries\[0\]` must .* got 0"),
        ([exact()] * 3, [1, 2.5], r"`boundaries\[1\]` must .* got 2\.5"),
        ([exact()] * 3, [4, 4], r"must be ascending, got \[4, 4\]"),
        ([exact()] * 3, [4, 2], r"must be ascending, got \[4, 2\]"),
        ([exact()] * 2, [1, 2], "one fewer than `channels`, got 2 for 2 channels"),
        ([exact()] * 2, [], "one fewer than `channels`, got 0 for 2 channels"),
        ([], [], "one fewer than `channels`, got 0 for 0 channels"),
        (
            [exact(), exact(axis_name="replicas")],
            [1],
            r"got the named axes \['replicas', 'workers'\].*`axis_name`",
        ),
    ],
)
def test_stretches_that_make_no_sense_are_refused(channels, boundaries, message):
    with pytest.raises(ValueError, match=message):
        join_channels(channels, boundaries)


def test_the_axis_is_that_of_the_channels():
    channels = [
        exact(axis_name="replicas"),
        all_gather(top_k(0.1), axis_name="replicas"),
    ]
    joined = join_channels(channels, [1])
    assert joined.axis_name == "replicas"
    mean, _, _ = average(joined, trees())
    np.testing.assert_allclose(mean[0], trees().mean(axis=0), rtol=1e-5, atol=1e-6)
