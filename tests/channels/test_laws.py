"""What holds for every channel, over the table in `tests/support/channels.py`."""

import itertools
from collections.abc import Iterable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from gmc_jax import (
    Channel,
    Compressor,
    all_gather,
    all_reduce,
    count_entries,
    exact,
    join_channels,
    random_block,
    random_k,
    scaled_sign,
    simulated_server,
    top_k,
)
from gmc_jax.core import Tree
from tests.support.channels import CHANNELS as TABLE
from tests.support.channels import (
    SHAPES,
    VARIANTS,
    WORKERS,
    assert_law,
    assert_law_of,
    draw_trees,
    in_flight,
    wide,
)
from tests.support.compressors import COMPRESSORS, like, thinned
from tests.support.harness import average, average_here

CHANNELS = {name: row.channel for name, row in TABLE.items()}


def parameters_of(names: Iterable[str]) -> list:
    """Names as parameters of a test, some of them in the slow run."""
    return [
        pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else ())
        for name in names
    ]


every_channel = pytest.mark.parametrize("name", parameters_of(CHANNELS))


def average_on_devices(channel: Channel, trees: Tree, calls: int):
    """What `average` returns, with one worker on each of eight devices."""
    state = channel.init(jax.tree.map(lambda leaf: leaf[0], trees))

    def on_a_device(trees):
        tree = jax.tree.map(lambda leaf: leaf[0], trees)
        out = average_here(channel, tree, state, calls)
        return jax.tree.map(lambda leaf: leaf[None], out)

    spec = PartitionSpec("workers")
    mesh = Mesh(np.array(jax.devices()[:WORKERS]), ("workers",))
    everyone = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    return jax.jit(everyone)(trees)


@every_channel
@pytest.mark.parametrize(
    "kind",
    [  # Devices keep the law of the mixed kind, which holds those of one dtype.
        pytest.param(kind, marks=() if kind == "float64" else pytest.mark.slow)
        for kind in SHAPES
        if kind not in ("float32", "bfloat16", "mixed")
    ],
)
def test_what_is_not_lost_arrives(name, kind):
    with jax.enable_x64("float64" in SHAPES[kind]):
        trees = draw_trees(kind)
        mean, lost, state = average(CHANNELS[name], trees)
    rtol = 1e-14 if kind == "float64" else 1e-6
    assert_law_of(name, trees, mean, lost, rtol, in_flight(state))


@given(
    shapes=st.lists(st.sampled_from([(), (1,), (0, 2), (7,), (3, 4)]), max_size=3),
    dtypes=st.permutations(["float32", "bfloat16", "float16"]),
    ratio=st.sampled_from([0.001, 0.3, 1.0]),
    per_leaf=st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=8)
def test_what_is_not_lost_arrives_of_any_tree(shapes, dtypes, ratio, per_leaf):
    draw = np.random.default_rng(0)
    trees = {
        dtype: [draw.normal(size=(3, *shape)).astype(jnp.dtype(dtype))]
        for dtype, shape in zip(dtypes, shapes, strict=False)
    }
    mean, lost, _ = average(all_gather(top_k(ratio), per_leaf=per_leaf), trees)
    assert_law(trees, mean, lost, rtol=1e-6)


@every_channel
def test_devices_agree_with_the_simulation(name):
    trees = draw_trees("mixed")
    mean, lost, state = average(CHANNELS[name], trees, calls=2)
    on_devices = average_on_devices(CHANNELS[name], trees, calls=2)

    late = in_flight(on_devices[2])
    assert_law_of(name, trees, *on_devices[:2], rtol=1e-6, late=late)
    if TABLE[name].adds_floats:
        chex.assert_trees_all_close(lost, on_devices[1], rtol=1e-6, atol=1e-6)
        chex.assert_trees_all_close(state, on_devices[2], rtol=1e-5, atol=1e-5)
    else:
        chex.assert_trees_all_equal(lost, on_devices[1])
        chex.assert_trees_all_equal(state, on_devices[2])
    chex.assert_trees_all_close(mean, on_devices[0], rtol=1e-6, atol=1e-7)


@every_channel
def test_only_a_lossless_channel_loses_nothing(name):
    with jax.enable_x64(True):
        _, lost, _ = average(CHANNELS[name], draw_trees("float64"))
    everything_arrives = not any(np.any(leaf) for leaf in jax.tree.leaves(lost))
    assert everything_arrives == TABLE[name].lossless


@pytest.mark.parametrize(
    "name",
    parameters_of(
        name for name, row in TABLE.items() if row.stays_finite and not row.late
    ),
)
def test_finite_trees_have_a_finite_mean(name):
    """Up to the largest number of float32: sums before a division are infinite."""
    most = float(np.finfo(np.float32).max)
    trees = jax.tree.map(
        lambda leaf: np.where(np.abs(leaf) < 1, np.sign(leaf), 0.9) * most,
        draw_trees("float32"),
    )
    trees["float32"][1][:, :5] = most
    trees = jax.tree.map(np.float32, trees)
    mean, lost, _ = average(CHANNELS[name], trees)
    for leaf, of_all, own in zip(
        *map(jax.tree.leaves, (trees, mean, lost)), strict=True
    ):
        sent = (wide(leaf) - wide(own)).mean(axis=0)
        arrived = wide(of_all).mean(axis=0)
        np.testing.assert_allclose(arrived, sent, rtol=0, atol=1e-6 * most)


@pytest.mark.parametrize("name", ["top_k", "random_block", "scaled_sign"])
def test_shares_change_no_bit_of_a_mean(name):
    """Of a linear compressor: the sum over the number of workers, as of any other."""
    compressor = {
        "top_k": top_k(0.3),
        "random_block": random_block(0.3),
        "scaled_sign": scaled_sign(),
    }[name]
    assert compressor.linear
    make = all_reduce if compressor.shared else all_gather
    trees = jax.tree.map(lambda leaf: leaf[:3], draw_trees("float32"))
    shared, _, _ = average(make(compressor), trees)
    summed, _, _ = average(make(compressor._replace(linear=False)), trees)
    chex.assert_trees_all_equal(shared, summed)


@pytest.mark.parametrize("name", ["thinned per leaf", "random_k", "random_block"])
def test_every_call_draws_anew(name):
    trees = draw_trees("float32")
    _, first, _ = average(CHANNELS[name], trees, calls=1)
    _, second, _ = average(CHANNELS[name], trees, calls=2)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(first, second)


def test_the_worker_is_folded_in_unless_the_compressor_is_shared():
    """All workers hold the same, so what differs is what they draw."""
    same = {"x": np.broadcast_to(np.arange(1.0, 41.0, dtype=np.float32), (WORKERS, 40))}
    _, own, _ = average(all_gather(thinned()), same)
    _, shared, _ = average(all_gather(thinned()._replace(shared=True)), same)

    assert len(np.unique(own["x"], axis=0)) == WORKERS
    assert len(np.unique(shared["x"], axis=0)) == 1


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("per_leaf", [False, True])
def test_the_key_is_folded_as_documented(per_leaf, shared):
    """Seed, then step, then leaf (one by one), then worker (unless shared)."""
    compressor = thinned()._replace(shared=shared)
    trees = draw_trees("float32")["float32"]
    channel = all_gather(compressor, per_leaf=per_leaf, seed=5)

    _, lost, _ = average(channel, trees, calls=3)

    key = jax.random.fold_in(jax.random.key(5), 2)
    for worker in range(WORKERS):
        mine = [jnp.asarray(leaf[worker]).ravel() for leaf in trees]
        vectors = mine if per_leaf else [jnp.concatenate(mine)]
        expected = []
        for index, vector in enumerate(vectors):
            own = jax.random.fold_in(key, index) if per_leaf else key
            own = own if shared else jax.random.fold_in(own, worker)
            expected.append(compressor.encode(own, vector)[1])
        ours = [leaf[worker].ravel() for leaf in lost]
        np.testing.assert_array_equal(np.concatenate(ours), np.concatenate(expected))


def test_two_seeds_draw_differently():
    trees = draw_trees("float32")
    _, one, _ = average(all_reduce(random_k(0.1), seed=1), trees)
    _, other, _ = average(all_reduce(random_k(0.1), seed=2), trees)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(one, other)


@pytest.mark.parametrize("per_leaf", [False, True])
def test_the_ratio_is_of_the_whole_vector_or_of_each_leaf(per_leaf):
    """All large entries lie in one leaf."""
    trees = {
        "large": np.random.default_rng(0).normal(100, size=(WORKERS, 5, 4)),
        "small": np.random.default_rng(1).normal(size=(WORKERS, 30)),
    }
    trees = jax.tree.map(np.float32, trees)
    _, lost, _ = average(all_gather(top_k(0.1), per_leaf=per_leaf), trees)
    sent = {
        name: np.count_nonzero(np.asarray(lost[name]) == 0) / WORKERS for name in lost
    }
    assert sent == ({"large": 2, "small": 3} if per_leaf else {"large": 5, "small": 0})


@pytest.mark.parametrize(
    ("name", "caller"),
    [("exact", "exact"), ("top_k", "all_gather"), ("random_k", "all_reduce")],
)
def test_outside_the_axis_the_error_says_how_to_get_inside(name, caller):
    tree = {"x": jnp.ones(3)}
    channel = CHANNELS[name]
    message = (
        f"`{caller}` needs the named axis 'workers', and no such axis is in "
        r"scope.* `gmc_jax.simulate` .* `gmc_jax.distribute` .*"
        rf"`{caller}\(..., axis_name=...\)`"
    )
    with pytest.raises(NameError, match=message):
        channel.average(tree, channel.init(tree))


@pytest.mark.parametrize(
    "make",
    [
        exact,
        lambda **how: all_gather(top_k(0.5), **how),
        lambda **how: all_reduce(random_k(0.5), **how),
    ],
)
def test_the_axis_may_have_another_name(make):
    channel = make(axis_name="replicas")
    assert channel.axis_name == "replicas"
    assert count_entries(channel).axis_name == "replicas"
    trees = np.arange(6, dtype=np.float32).reshape(2, 3)
    mean, lost, _ = average(channel, trees)
    np.testing.assert_allclose(mean[0], (trees - lost).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("name", ["exact", "top_k", "random_block"])
def test_a_leaf_that_is_not_floating_is_an_error(name):
    trees = {"kernel": np.ones((WORKERS, 3), np.float32), "step": np.ones(WORKERS, int)}
    with pytest.raises(TypeError, match=r"'step'.* got dtype int32.*optax.partition"):
        average(CHANNELS[name], trees)


@pytest.mark.parametrize(
    ("make", "caller"),
    [
        (lambda **how: all_gather(top_k(1e-3), **how), "all_gather"),
        (lambda **how: all_reduce(random_block(1e-3), **how), "all_reduce"),
    ],
)
def test_a_vector_of_more_than_int32_can_address_is_an_error(make, caller):
    """Only shapes are needed: nothing of that size is ever made."""
    half = jax.ShapeDtypeStruct((2**30,), jnp.float32)
    message = rf"got 2147483648.* `{caller}\(..., per_leaf=True\)`"
    with pytest.raises(ValueError, match=message):
        make().bits([half, half])
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            jax.vmap(
                lambda tree: make().average(tree, make().init(tree)),
                axis_name="workers",
            ),
            [jax.ShapeDtypeStruct((2, 2**30), jnp.float32)] * 2,
        )
    assert make(per_leaf=True).bits([half, half]) > 0
    with pytest.raises(ValueError, match="split the largest leaf"):
        make(per_leaf=True).bits(jax.ShapeDtypeStruct((2**31,), jnp.float32))


# Draws.


def thinned_alike() -> Compressor:
    """As `thinned`, of the same entries on all workers."""
    return thinned()._replace(shared=True)


@pytest.mark.parametrize("per_leaf", [False, True])
@pytest.mark.parametrize(
    ("channel", "code"),
    [
        (all_gather, thinned()),
        (all_gather, thinned_alike()),
        (all_reduce, thinned_alike()),
        (simulated_server, thinned()),
    ],
    ids=["all_gather", "all_gather shared", "all_reduce", "simulated_server"],
)
def test_draws_follow_the_documented_rule(channel, code, per_leaf):
    """The rule of the docstrings alone repeats what every worker lost at every call."""
    assert "`key = fold_in(jax.random.key(seed), step)`" in (channel.__doc__ or "")
    # An empty leaf has an index too, and leaves of one size have draws of their own.
    leaves = [(2, 0), (2, 5, 3), (2, 4), (2, 15)] if per_leaf else [(2, 0), (2, 5, 3)]
    trees = [np.ones(shape, np.float32) for shape in leaves]
    through = channel(code, per_leaf=per_leaf, seed=7)
    for step in (0, 1):
        _, lost, _ = average(through, trees, calls=step + 1)
        for worker, leaf in itertools.product((0, 1), range(1, len(trees))):
            key = jax.random.fold_in(jax.random.key(7), step)
            if per_leaf:
                key = jax.random.fold_in(key, leaf)
            if channel is not simulated_server and not code.shared:
                key = jax.random.fold_in(key, worker)
            _, expected = code.encode(key, jnp.ones(trees[leaf][0].size))
            np.testing.assert_array_equal(np.ravel(lost[leaf][worker]), expected)


def test_joined_channels_draw_by_their_own_calls():
    """The second channel's first call draws as a first call does."""
    trees = draw_trees("float32")
    alike = all_gather(thinned(), seed=3)
    joined = join_channels([exact(), alike], boundaries=[2])
    third = average(joined, trees, calls=3)[1]
    chex.assert_trees_all_equal(third, average(alike, trees, calls=1)[1])


def test_draws_go_on_where_the_counter_ends():
    """Counters that end: draws take the step without a sign, and keep changing."""
    channel, trees = all_gather(thinned()), np.ones((WORKERS, 40), np.float32)
    state = channel.init(trees[0])._replace(step=jnp.int32(2**31 - 2))
    drawn = set()
    for _ in range(3):
        _, lost, states = average(channel, trees, state)
        state = jax.tree.map(lambda leaf: leaf[0], states)
        drawn.add(np.asarray(lost).tobytes())
    assert len(drawn) == 3


PLAIN = {"top_k", "random_k", "scaled_sign"}
DRAWING = [
    *("random_k", "random_block", "sampled_top_k"),
    *("powers_of_two", "qsgd", "terngrad"),
]
SEVERAL = [(7, 9), (63,), (40,), (7, 9), (40,)]


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        *(
            pytest.param(
                name, "threefry2x32", marks=() if name in PLAIN else pytest.mark.slow
            )
            for name in COMPRESSORS
        ),
        *(pytest.param(name, "rbg", marks=pytest.mark.slow) for name in DRAWING),
    ],
)
def test_leaves_that_are_alike_are_encoded_as_each_alone(name, generator):
    """Bit by bit, though leaves of one shape are one batch; but for sums that round."""
    rounding = 1e-6 * COMPRESSORS[name].splits_entries
    draw, code = np.random.default_rng(5), COMPRESSORS[name].make(0.1)
    trees = [draw.normal(size=(1, *shape)).astype(np.float32) for shape in SEVERAL]
    with jax.default_prng_impl(generator):
        mean, lost, _ = average(all_gather(code, per_leaf=True), trees)
        for leaf, x in enumerate(trees):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), leaf)
            own = key if code.shared else jax.random.fold_in(key, 0)
            message, expected = code.encode(own, jnp.asarray(x[0]))
            stacked = jax.tree.map(lambda part: part[None], message)
            decoded = code.decode(key, stacked, like(x[0]))
            for ours, alone in ((lost, expected), (mean, decoded)):
                np.testing.assert_allclose(ours[leaf][0], alone, rtol=0, atol=rounding)


def test_leaves_that_are_alike_are_compiled_once():
    """A program of many leaves holds one selection for each of their sizes."""

    def loops(leaves: int) -> int:
        trees = [np.ones((1, 40), np.float32), *[np.ones((1, 63), np.float32)] * leaves]
        channel = all_gather(top_k(0.1), per_leaf=True)
        run = jax.vmap(channel.average, (0, None), axis_name="workers")
        state = channel.init([tree[0] for tree in trees])
        return jax.jit(run).lower(trees, state).as_text().count("stablehlo.while")

    assert 2 < loops(2) == loops(20)
