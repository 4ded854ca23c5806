"""What is sent: the message, the compiled program and the paper's count agree."""

import functools
import itertools
import math
import re
from collections.abc import Hashable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    all_reduce,
    averaged,
    count_entries,
    dense,
    exact,
    gmc,
    message_bits,
    query,
    random_block,
    random_k,
    relative_cost,
    sampled_top_k,
    scaled_sign,
    skip_nonfinite,
    threshold,
    top_k,
    wire_bytes,
)
from gmc_jax.costs._bits_per_step import bits_of_steps
from tests.support import harness
from tests.support.harness import start, targets
from tests.support.methods import PAPERS, SECOND

WORKERS, D = 8, 30

CHANNELS = {
    "exact": exact(),
    "dense": all_gather(dense()),
    "top_k": all_gather(top_k(0.1)),
    "top_k per leaf": all_gather(top_k(0.1), per_leaf=True),
    "sampled_top_k": all_gather(sampled_top_k(0.1, sample=0.5)),
    "gathered random_k": all_gather(random_k(0.1)),
    "random_k": all_reduce(random_k(0.1)),
    "random_block": all_reduce(random_block(0.1)),
    "random_block per leaf": all_reduce(random_block(0.1), per_leaf=True),
    "threshold": all_gather(threshold(1.0, 0.1)),
    "scaled_sign": all_gather(scaled_sign()),
    "scaled_sign per leaf": all_gather(scaled_sign(), per_leaf=True),
    "count_entries": count_entries(all_gather(top_k(0.1))),
}
REDUCED = {"exact", "random_k", "random_block", "random_block per leaf"}
# Bytes of a message: values, and indices of four bytes; or words of signs, and a scale.
EXPECTED = {
    ("exact", "float32"): 4 * D,
    ("exact", "bfloat16"): 4 * D,
    ("dense", "bfloat16"): 2 * D,
    ("top_k", "float32"): (4 + 4) * 3,
    ("top_k", "bfloat16"): (2 + 4) * 3,
    ("top_k per leaf", "float32"): (4 + 4) * (1 + 2),
    ("sampled_top_k", "float32"): (4 + 4) * 4,
    ("gathered random_k", "bfloat16"): 2 * 3,
    ("random_k", "bfloat16"): 4 * 3,
    ("random_block", "float32"): 4 * 3,
    ("threshold", "float32"): (4 + 4) * 3,
    ("threshold", "bfloat16"): (2 + 4) * 3,
    ("scaled_sign", "float32"): 4 * 1 + 4,
    ("scaled_sign", "bfloat16"): 4 * 1 + 4,
    ("scaled_sign per leaf", "float32"): (4 * 1 + 4) * 2,
}


def params(dtype="float32"):
    draw = np.random.default_rng(0)
    return {
        "bias": jnp.asarray(draw.normal(size=10), dtype),
        "kernel": jnp.asarray(draw.normal(size=(4, 5)), dtype),
    }


def gradients(dtype="float32", steps=None):
    """Each worker's own, [workers, ...] or [steps, workers, ...]."""
    draw = np.random.default_rng(1)
    lead = (WORKERS,) if steps is None else (steps, WORKERS)
    return jax.tree.map(
        lambda x: draw.normal(size=(*lead, *x.shape)).astype(x.dtype), params(dtype)
    )


def step_of(tx):
    """A step whose batch is the worker's gradient."""

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return step


def distributed(tx, dtype="float32"):
    """The training function and its arguments."""
    batch = gradients(dtype)
    state = params(dtype), tx.init(params(dtype))
    train, state = gmc_jax.distribute(step_of(tx), state, batch)
    return train, state, batch


def text_of(train, *args) -> str:
    return train.lower(*args).compile().as_text()


def over_workers(fn):
    """A function of one worker's vector, on one worker a device."""
    mesh = Mesh(np.array(jax.devices()), ("workers",))
    own = PartitionSpec("workers")
    return jax.shard_map(fn, mesh=mesh, in_specs=own, out_specs=own, check_vma=False)


# The compiled program.


def assert_wire_is_message(name, dtype):
    channel = CHANNELS[name]
    sent = wire_bytes(*distributed(averaged(channel), dtype))
    assert sent == sent.always == message_bits(channel, params(dtype)) / 8
    assert sent == EXPECTED.get((name, dtype), sent)
    assert sent > 0
    assert sum(operation.bytes for operation in sent.operations) == sent
    kind = "all-reduce" if name in REDUCED else "all-gather"
    assert {operation.operation for operation in sent.operations} == {kind}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CHANNELS)
def test_the_program_sends_the_message_and_nothing_else(name, dtype):
    assert_wire_is_message(name, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", CHANNELS)
def test_the_program_sends_the_message_in_other_precisions(name, dtype):
    with jax.enable_x64(True):
        assert_wire_is_message(name, dtype)


def test_what_is_expected_is_of_channels_in_the_table():
    assert {name for name, _ in EXPECTED} <= set(CHANNELS)


def test_one_gather_for_each_dtype_however_many_the_leaves():
    """Of a tree of float32 and bfloat16: values of both, and indices."""
    tree = {f"{i}": jnp.ones(7 + i, ("float32", "bfloat16")[i % 2]) for i in range(8)}
    batch = jax.tree.map(lambda x: jnp.ones((WORKERS, *x.shape), x.dtype), tree)
    channel = all_gather(top_k(0.1), per_leaf=True)
    tx = averaged(channel)
    train, state = gmc_jax.distribute(step_of(tx), (tree, tx.init(tree)), batch)
    sent = wire_bytes(train, state, batch)
    kept = [max(1, math.ceil(0.1 * (7 + i))) for i in range(8)]
    assert sent == 4 * sum(kept) + 4 * sum(kept[::2]) + 2 * sum(kept[1::2])
    assert sent == message_bits(channel, tree) / 8
    assert sorted(operation.bytes for operation in sent.operations) == sorted(
        [4 * sum(kept), 4 * sum(kept[::2]), 2 * sum(kept[1::2])]
    )


def test_a_tree_of_many_leaves_is_reduced_whole():
    """XLA writes a comment before every fifth operand."""
    tree = [jnp.ones((3, i + 1)) for i in range(12)]
    batch = [jnp.ones((WORKERS, *x.shape)) for x in tree]
    tx = averaged(exact())
    train, state = gmc_jax.distribute(step_of(tx), (tree, tx.init(tree)), batch)
    size = 4 * sum(x.size for x in tree)
    assert wire_bytes(train, state, batch) == size == message_bits(exact(), tree) // 8


def test_only_shapes_are_needed():
    train, state, batch = distributed(gmc(0.1, CHANNELS["top_k"]))
    shapes = jax.eval_shape(lambda *args: args, state, batch)
    assert wire_bytes(train, *shapes) == wire_bytes(train, state, batch) == 24
    assert not state[0]["bias"].is_deleted()
    assert message_bits(CHANNELS["top_k"], shapes[0][0]) == 8 * 24


def test_one_device_sends_nothing():
    """All workers simulated, and one worker on one device."""
    tx = gmc(0.1, CHANNELS["top_k"])
    state, batch = (params(), tx.init(params())), gradients()
    train, laid_out = gmc_jax.simulate(step_of(tx), state, batch, WORKERS)
    assert wire_bytes(train, laid_out, batch) == 0
    assert wire_bytes(train, laid_out, batch).operations == ()

    mesh = Mesh(np.array(jax.devices()[:1]), ("workers",))
    for channel in (exact(), CHANNELS["top_k"], CHANNELS["random_k"]):
        tx = averaged(channel)
        alone = jax.tree.map(lambda x: x[:1], batch)
        state = params(), tx.init(params())
        train, laid_out = gmc_jax.distribute(step_of(tx), state, alone, mesh=mesh)
        assert wire_bytes(train, laid_out, alone) == 0


def test_pmap_sends_as_much():
    tx = gmc(0.1, CHANNELS["top_k"])
    state, batch = (params(), tx.init(params())), gradients()
    plan = gmc_jax.layout(step_of(tx), state, batch, WORKERS)
    axes = (plan.axes, 0)
    train = jax.pmap(step_of(tx), axis_name="workers", in_axes=axes, out_axes=axes)
    assert wire_bytes(train, plan.lay_out(state), batch) == 24


def test_a_second_axis_of_the_mesh_sends_nothing_of_its_own():
    """But slices: of three values and three indices, two by each of two devices."""
    tx = gmc(0.1, CHANNELS["top_k"])
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
    batch = jax.tree.map(lambda x: x[:4], gradients())
    state = params(), tx.init(params())
    train, state = gmc_jax.distribute(step_of(tx), state, batch, mesh=mesh)
    sent = wire_bytes(train, state, batch)
    assert sent == sent.always == 32
    assert sent.operations == (("all-gather", 16, False, 1),) * 2
    # With no axis for the workers all that any device puts into collectives counts.
    assert wire_bytes(train, state, batch, axis_name="none") > 32


# Conditionals and loops.


def test_accumulated_steps_send_only_when_complete():
    tx = accumulate(gmc(0.1, CHANNELS["top_k"]), 4)
    sent = wire_bytes(*distributed(tx))
    assert (sent, sent.always) == (24, 0)
    assert all(operation.conditional for operation in sent.operations)


def test_multi_steps_of_optax_send_at_every_step():
    """The reason for `accumulate`."""
    tx = optax.MultiSteps(gmc(0.1, CHANNELS["top_k"]), 4)
    sent = wire_bytes(*distributed(tx.gradient_transformation()))
    assert (sent, sent.always) == (24, 24)


def test_the_guard_sends_one_float_always_and_one_where_it_does_not_skip():
    sent = wire_bytes(*distributed(skip_nonfinite(gmc(0.1, CHANNELS["top_k"]))))
    assert (sent, sent.always) == (4 + 24 + 4, 4)
    assert {operation[:3] for operation in sent.operations} == {
        ("all-reduce", 4, False),
        ("all-reduce", 4, True),
        ("all-gather", 12, True),
    }


def test_of_two_branches_the_larger_counts():
    def fn(x):
        return jax.lax.cond(
            jax.lax.psum(x[0, 0], "workers") > 0,
            lambda x: jax.lax.psum(x[:, :5], "workers").sum() + x,
            lambda x: jax.lax.psum(x[:, :9], "workers").sum() * x,
            x,
        )

    sent = wire_bytes(over_workers(fn), jnp.ones((WORKERS, D)))
    assert (sent, sent.always) == (4 + 36, 4)
    assert sorted(sent.operations, key=lambda operation: operation.bytes) == [
        ("all-reduce", 4, False, 1),
        ("all-reduce", 20, True, 1),
        ("all-reduce", 36, True, 1),
    ]


def test_a_loop_counts_every_round():
    def fn(x):
        return jax.lax.fori_loop(
            0, 10, lambda i, x: jax.lax.pmean(jnp.sin(x), "workers"), x
        )

    sent = wire_bytes(over_workers(fn), jnp.ones((WORKERS, D)))
    assert sent == sent.always == 10 * 4 * D
    assert {operation.times for operation in sent.operations} == {10}


def test_a_loop_of_unknown_length_counts_one_round():
    def fn(x):
        return jax.lax.while_loop(
            lambda x: jnp.sum(x) < 1e6,
            lambda x: jax.lax.psum(x + 1, "workers"),
            jax.lax.pmean(x, "workers"),
        )

    sent = wire_bytes(over_workers(fn), jnp.ones((WORKERS, D)))
    assert sent == sent.always == 2 * 4 * D
    assert [operation.times for operation in sent.operations] == [1, None]


# A million parameters.

MILLION = 1_000_000


@functools.cache
def million(channel_name: str) -> tuple[str, gmc_jax.WireBytes]:
    """The text of a GMC step of a million parameters, and what it sends."""
    channel = {
        "top_k": all_gather(top_k(0.001)),
        "random_block": all_reduce(random_block(0.001)),
    }[channel_name]
    tx = gmc(0.1, channel)

    def step(state, batch):
        params, opt_state = state
        grads = jax.grad(lambda w: jnp.sum((w - batch) ** 2))(query(opt_state, params))
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    params = jnp.zeros(MILLION)
    batch = jax.ShapeDtypeStruct((WORKERS, MILLION), jnp.float32)
    train, state = gmc_jax.distribute(step, (params, tx.init(params)), batch)
    sent = wire_bytes(train, state, batch)
    assert sent == message_bits(channel, params) // 8
    return text_of(train, state, batch), sent


def arrays(text: str) -> set[tuple[int, ...]]:
    """The shapes of all arrays in the text of a program."""
    shapes = re.findall(r"\b[a-z]+\d*\w*\[([\d,]+)\]", text)
    return {tuple(map(int, shape.split(","))) for shape in shapes}


def collective_lines(text: str) -> list[str]:
    kinds = "all-|collective-|reduce-scatter|ragged-|send|recv"
    return re.findall(rf"(?m)^.* = .*?[ )]((?:{kinds})[\w-]*\(.*)$", text)


def test_a_million_parameters_exchange_eight_thousand_bytes_a_worker():
    text, sent = million("top_k")
    assert sent == sent.always == 8000
    assert sent.operations == (("all-gather", 4000, False, 1),) * 2
    assert len(collective_lines(text)) == 2
    gathered = re.findall(r"= (\w+\[[\d,]+\])\S* all-gather\(", text)
    assert sorted(gathered) == ["f32[8,1000]", "s32[8,1000]"]


def test_no_array_of_all_workers_times_the_size_is_ever_made():
    text, _ = million("top_k")
    shapes = arrays(text)
    assert (MILLION,) in shapes
    assert (WORKERS, 1000) in shapes
    assert (WORKERS, MILLION) not in shapes
    assert (WORKERS * 1000, MILLION) not in shapes
    assert max(map(math.prod, shapes)) == MILLION


def test_a_block_of_a_million_parameters_is_one_all_reduce():
    text, sent = million("random_block")
    assert sent == sent.always == 4000
    assert sent.operations == (("all-reduce", 4000, False, 1),)
    (line,) = collective_lines(text)
    assert re.search(r"= f32\[1000\]\S* all-reduce\(", text), line
    assert max(map(math.prod, arrays(text))) == MILLION


# The count of the paper.


def train_counted(tx, runner="simulate", steps=5):
    """The states of `tx`, and the means that came back, of some steps."""
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
    """The cost of error feedback with top-s, counted entry by entry."""
    residuals = np.zeros((WORKERS, D))
    up = down = 0
    for gradient in vectors(steps):
        owed = residuals + gradient
        mean = np.zeros(D)
        for k in range(WORKERS):
            places = np.argsort(-np.abs(owed[k]), kind="stable")[:s]
            up += len(places)
            mean[places] += owed[k, places] / WORKERS
            residuals[k] = owed[k]
            residuals[k, places] = 0
        down += np.count_nonzero(mean)
    return (2 * up + 2 * WORKERS * down) / (2 * D * WORKERS * steps)


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
@pytest.mark.parametrize(("ratio", "s"), [(0.1, 3), (0.3, 9), (1.0, 30)])
def test_the_cost_of_top_k_is_the_papers(ratio, s, runner):
    tx = gmc_jax.error_feedback(count_entries(all_gather(top_k(ratio))))
    state, _ = train_counted(tx, runner)
    cost = relative_cost(state)
    assert cost == pytest.approx(paper(5, s), rel=1e-12)
    assert 2 * s / D <= cost <= (1 + WORKERS) * s / D
    # Workers meet in some coordinates, and not in all.
    if s < D:
        assert 2 * s / D < cost < (1 + WORKERS) * s / D


@pytest.mark.parametrize("runner", ["simulate", "distribute"])
def test_messages_without_indices_count_once(runner):
    """A block costs exactly s/d, and an exact mean exactly 1."""
    state, _ = train_counted(
        gmc(0.1, count_entries(all_reduce(random_block(0.1)))), runner
    )
    assert relative_cost(state) == 3 / D
    state, _ = train_counted(gmc(0.1, count_entries(exact())), runner)
    assert relative_cost(state) == 1


def test_the_costs_and_sizes_of_several_channels_add_up():
    """Biases dense (10 entries), kernels by a block of 2 of 20."""
    tx = optax.partition(
        {
            "dense": averaged(count_entries(exact())),
            "block": averaged(count_entries(all_reduce(random_block(0.1)))),
        },
        {"bias": "dense", "kernel": "block"},
    )
    state, _ = train_counted(tx)
    assert relative_cost(state) == pytest.approx((10 + 2) / D, rel=1e-12)

    # Of indexed messages beside dense ones, only the former count twice.
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


def test_one_dense_average_is_set_against_a_step_that_averages_twice():
    """The second at every other step, of all leaves or of one."""
    block, dense = all_reduce(random_block(0.1)), exact()

    def cost(*channels):
        tx = optax.chain(averaged(channels[0]), accumulate(averaged(channels[1]), 2))
        return relative_cost(train_counted(tx, steps=4)[0])

    both = 3 / D + 1 / 2
    extra = cost(count_entries(block), count_entries(dense, extra=True))
    assert extra == pytest.approx(both, rel=1e-15)
    # Unless it is told so, each of its calls is taken for a step of its own.
    assert cost(count_entries(block), count_entries(dense)) == pytest.approx(
        both / 1.5, rel=1e-15
    )


def test_channels_that_take_turns_count_their_own_steps():
    """Three dense steps, then blocks: of five steps, each is set against one."""
    turns = gmc_jax.join_channels(
        [count_entries(exact()), count_entries(all_reduce(random_block(0.1)))], [3]
    )
    state, _ = train_counted(averaged(turns))
    assert relative_cost(state) == pytest.approx((3 + 2 * 3 / D) / 5, rel=1e-15)


def test_an_extra_channel_alone_has_nothing_to_be_compared_with():
    state, _ = train_counted(averaged(count_entries(exact(), extra=True)))
    with pytest.raises(ValueError, match="count one without `extra`"):
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
    """By hand, in halves of 32 bits: 3 * 2^32 + 5 and so on, and on two workers."""
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
    """A run that has counted for long, and counts on."""
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
    with pytest.raises(ValueError, match=r"holds no counts.*`counted\(channel\)`"):
        relative_cost(tx.init(params()))
    tx = gmc(0.1, count_entries(all_gather(top_k(0.1))))
    with pytest.raises(ValueError, match="counted no step yet"):
        relative_cost(tx.init(params()))


def test_dense_and_compressed_bits_compare():
    ratio = message_bits(exact(), params()) / message_bits(CHANNELS["top_k"], params())
    assert ratio == D / (2 * 3)
    for one, other in itertools.pairwise([0.1, 0.2, 0.5, 1.0]):
        assert message_bits(all_gather(top_k(one)), params()) < message_bits(
            all_gather(top_k(other)), params()
        )


# Of a transformation.

PLAIN = {  # Through one channel, at every step.
    *("dmsgd", "dmsgd_local", "ef_sgd", "ef_momentum", "def_sgd", "def_a", "saef"),
    *("gmc", "gmc_plus", "gmc_server_momentum", "gmc_rate_inside", "dgc"),
    *("dgc without masking", "dgc with nesterov", "dist_ef_sgdm"),
}
QUICK = {"gmc", "saef", "dist_ef_sgdm", "cser", "post_local_sgd"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, marks=() if method in QUICK else pytest.mark.slow)
        for method in PAPERS
    ],
)
def test_bits_of_a_method_are_those_of_its_channels(method):
    channel = all_gather(top_k(0.1), per_leaf=True)
    tx = PAPERS[method].ours(0.1, channel)
    message, dense = 64 * 3, 32 * 20
    reset = message_bits(SECOND[0], start())
    expected = {
        "saef that averages": message + dense / 7,
        "cser": message + reset / 3,
        "cser with nesterov": message + reset / 7,
        "local_sgd": message / 4,
        "local_sgd that resets": message / 3,
        "post_local_sgd": message / 6,
        "double_averaging": (message + dense) / 4,
        "lookahead": message / 5,
    } | dict.fromkeys(PLAIN, message_bits(channel, start()))
    average = message_bits(tx, start())
    assert average == pytest.approx(expected.get(method, message / 4))
    assert isinstance(average, int) == (average == int(average))


@pytest.mark.slow
@pytest.mark.parametrize("method", PAPERS)
def test_steps_send_what_the_compiled_program_does(method):
    """The busiest step what wire_bytes says, the others what is sent always."""
    channel = all_reduce(random_block(0.1))
    tx = PAPERS[method].ours(0.1, channel)
    batch = jax.tree.map(lambda leaf: leaf[0], targets(start(), 1))
    train, state = gmc_jax.distribute(
        harness.step_of(tx), (start(), tx.init(start())), batch
    )
    compiled = wire_bytes(train, state, batch)
    steps = bits_of_steps(tx, start(), 100, "workers", {}) // 8
    assert (steps[50:].max(), steps[50:].min()) == (compiled, compiled.always)


def test_only_leaves_that_travel_count():
    """What the whole tree would send is not what a partition of it does."""
    labels = {"bias": "dense", "kernel": "sparse"}
    channel = all_gather(top_k(0.1))
    tx = optax.partition({"dense": optax.sgd(0.1), "sparse": gmc(0.1, channel)}, labels)
    kernel = start()["kernel"]
    assert message_bits(tx, start()) == message_bits(channel, kernel)
    both: dict[Hashable, optax.GradientTransformation] = {
        "dense": gmc_jax.dmsgd(0.1, exact()),
        "sparse": gmc(0.1, channel),
    }
    assert message_bits(optax.partition(both, labels), start()) == (
        message_bits(exact(), start()["bias"]) + message_bits(channel, kernel)
    )
    frozen = optax.masked(optax.set_to_zero(), {"bias": True, "kernel": True})
    assert message_bits(frozen, start()) == 0


def test_bits_of_a_schedule_are_those_of_the_long_run_or_of_so_many_steps():
    warm_up = gmc(0.1, gmc_jax.join_channels([exact(), all_gather(top_k(0.1))], [3]))
    assert message_bits(warm_up, start()) == 64 * 2
    assert message_bits(warm_up, start(), steps=4) == (3 * 32 * 20 + 64 * 2) / 4
    with pytest.raises(ValueError, match="`steps` must be a whole number"):
        message_bits(warm_up, start(), steps=0)


def test_where_there_is_no_cycle_the_mean_is_over_all_steps():
    rare = gmc_jax.local_sgd(0.1, exact(), period=lambda t: 2 + jnp.asarray(t) // 100)
    meetings = local = 0
    for step in range(2**14):
        local = 0 if local + 1 >= 2 + step // 100 else local + 1
        meetings += local == 0
    assert message_bits(rare, start()) == 32 * 20 * meetings / 2**14


def test_what_is_rare_is_not_nothing():
    """A period longer than the steps that are looked at first."""
    rare = gmc_jax.local_sgd(0.1, exact(), period=20_000)
    assert message_bits(rare, start()) == 32 * 20 / 20_000
    local = gmc_jax.cser(0.1, gmc_jax.drop_all(), gmc_jax.drop_all(), period=2)
    assert message_bits(local, start()) == 0


def test_bits_are_known_while_a_program_is_traced():
    tx = gmc(0.1, all_gather(top_k(0.1)))
    assert jax.jit(lambda: jnp.full((), message_bits(tx, start())))() == 128


@pytest.mark.parametrize("what", [top_k(0.1), optax.sgd, None])
def test_only_channels_and_transformations_send(what):
    with pytest.raises(TypeError, match="`what` must be a channel, such as"):
        message_bits(what, start())


def test_bits_need_no_memory():
    huge = [jax.ShapeDtypeStruct((2**31 - 1,), jnp.bfloat16)] * 4
    channel = all_reduce(random_block(0.5), per_leaf=True)
    tx = gmc_jax.slowmo(optax.sgd(0.1), channel, period=2)
    assert message_bits(tx, huge) == 4 * 32 * 2**30 // 2
