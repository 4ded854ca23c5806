"""Tests that messages and compiled programs agree on the bytes that workers send."""

import math

import jax
import jax.numpy as jnp
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    averaged,
    centroids,
    chunked_top_k,
    exact,
    gmc,
    message_bits,
    quantised,
    random_block,
    top_k,
    wire_bytes,
)
from gmc_jax.costs.sent_per_step import bits_of_steps
from tests.support import harness
from tests.support.channels import CHANNELS as TABLE
from tests.support.channels import VARIANTS
from tests.support.harness import start, targets
from tests.support.papers import PAPERS
from tests.support.small_model import WORKERS, D, distributed, params, step_of

# Those that send one kind of message at every call. Others have files of their own.
CHANNELS = {
    name: row.channel
    for name, row in TABLE.items()
    if not row.own_means
    and name
    not in {"drop_all", "majority_vote", "thinned per leaf", "alternating_low_rank"}
    and "join" not in name
    and not name.startswith("two_phase")
}
REDUCED = {"exact", "random_k", "random_block", "random_block per leaf", "low_rank"}
# Bytes of a message: values, and indices of four bytes; or words of signs and a scale;
# or codes of a byte, and scales; or two factors of the kernel, and the bias.
EXPECTED = {
    ("exact", "float32"): 4 * D,
    ("exact", "bfloat16"): 4 * D,
    ("dense", "bfloat16"): 2 * D,
    ("top_k", "float32"): (4 + 4) * 3,
    ("top_k", "bfloat16"): (2 + 4) * 3,
    ("top_k per leaf", "float32"): (4 + 4) * (1 + 2),
    ("late top_k", "float32"): (4 + 4) * (1 + 2),
    ("sampled_top_k", "float32"): (4 + 4) * 4,
    ("gathered random_k", "bfloat16"): 2 * 3,
    ("random_k", "bfloat16"): 4 * 3,
    ("random_block", "float32"): 4 * 3,
    ("threshold", "float32"): (4 + 4) * 3,
    ("threshold", "bfloat16"): (2 + 4) * 3,
    ("scaled_sign", "float32"): 4 * 1 + 4,
    ("scaled_sign", "bfloat16"): 4 * 1 + 4,
    ("scaled_sign per leaf", "float32"): (4 * 1 + 4) * 2,
    ("low_rank", "float32"): 4 * (10 + 4 + 5),
    ("integers", "float32"): D + 4 * -(-D // 8),
    ("integers", "bfloat16"): D + 4 * -(-D // 8),
    # Places take a word of their bits 0 and 1, one of bit 2, and one of the rest.
    ("quantised", "float32"): (4 * 1 + 4) + 4 * 3,
}


def assert_wire_is_message(name, dtype):
    channel = CHANNELS[name]
    sent = wire_bytes(*distributed(averaged(channel), dtype))
    assert sent == sent.always == message_bits(channel, params(dtype)) / 8
    assert sent == EXPECTED.get((name, dtype), sent)
    assert sent > 0
    assert sum(operation.bytes for operation in sent.operations) == sent
    kind = "all-reduce" if name in REDUCED else "all-gather"
    assert {operation.operation for operation in sent.operations} == {kind}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name,
            dtype,
            marks=()
            if dtype == "float32" and name not in VARIANTS
            else pytest.mark.slow,
        )
        for name in CHANNELS
        for dtype in ("float32", "bfloat16")
    ],
)
def test_the_program_sends_the_message_and_nothing_else(name, dtype):
    assert_wire_is_message(name, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", CHANNELS)
def test_the_program_sends_the_message_in_other_precisions(name, dtype):
    with jax.enable_x64(True):
        assert_wire_is_message(name, dtype)


def test_every_expected_size_is_of_a_channel_in_the_table():
    assert {name for name, _ in EXPECTED} <= set(CHANNELS)


def test_any_number_of_leaves_needs_one_gather_for_each_dtype():
    """A tree of float32 and bfloat16 has gathers of both values and of indices."""
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


@pytest.mark.parametrize(
    ("selection", "entries"),
    [
        (top_k(0.01), 82),
        pytest.param(chunked_top_k(1 / 64), 128, marks=pytest.mark.slow),
    ],
)
def test_the_program_sends_two_bytes_an_entry(selection, entries):
    """Of 4 that its value would take, and 4 of its index."""
    tree = {"kernel": jnp.ones((64, 128))}
    batch = jax.tree.map(lambda x: jnp.ones((WORKERS, *x.shape)), tree)
    channel = all_gather(quantised(selection, centroids(2)), per_leaf=True)
    tx = averaged(channel)
    train, state = gmc_jax.distribute(step_of(tx), (tree, tx.init(tree)), batch)
    sent = wire_bytes(train, state, batch)
    assert sent == sent.always == message_bits(channel, tree) / 8
    assert sent <= 2 * entries


def test_all_leaves_of_a_large_tree_are_read():
    """XLA prints a comment before every fifth operand."""
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    # Both of its messages are conditional: it has no smallest step.
    [method for method in PAPERS if method != "one_bit_adam"],
)
def test_steps_send_what_the_compiled_program_does(method):
    """The busiest step sends `wire_bytes`, the others `always`."""
    channel = all_reduce(random_block(0.1))
    tx = PAPERS[method].ours(0.1, channel)
    batch = jax.tree.map(lambda leaf: leaf[0], targets(start(), 1))
    train, state = gmc_jax.distribute(
        harness.step_of(tx), (start(), tx.init(start())), batch
    )
    compiled = wire_bytes(train, state, batch)
    steps = bits_of_steps(tx, start(), 100, "workers", {}) // 8
    assert (steps[50:].max(), steps[50:].min()) == (compiled, compiled.always)
