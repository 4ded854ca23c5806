"""Tests of the channel in which every worker plays the server."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import all_gather, dense, random_k, sampled_top_k, top_k
from gmc_jax.channels._collectives import gather
from gmc_jax.core import Tree
from tests.support.harness import average


def test_workers_that_send_different_coordinates_are_all_heard():
    trees = jnp.array([[5.0, 0, 1, 0], [0, 7, 0, 1], [3, 0, 0, 2]])
    channel = all_gather(top_k(0.25))
    mean, lost, _ = average(channel, trees)
    np.testing.assert_allclose(mean, np.tile([8 / 3, 7 / 3, 0, 0], (3, 1)), rtol=1e-6)
    np.testing.assert_array_equal(lost, [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 2]])


@pytest.mark.parametrize(
    ("compressor", "dtype", "bits"),
    [
        (dense(), "float32", 100 * 32),
        (dense(), "bfloat16", 100 * 16),
        (top_k(0.05), "float32", 5 * (32 + 32)),
        (top_k(0.05), "float16", 5 * (16 + 32)),
        (sampled_top_k(0.05), "float32", 7 * (32 + 32)),
        (random_k(0.05), "float32", 5 * 32),
        (random_k(0.05), "bfloat16", 5 * 16),
    ],
)
def test_bits_are_the_size_of_the_message(compressor, dtype, bits):
    tree = {"a": jnp.zeros((8, 10), dtype), "b": jnp.zeros(20, dtype)}
    assert all_gather(compressor).bits(tree) == bits


def test_leaf_by_leaf_every_leaf_sends_its_own_message():
    tree = {"a": jnp.zeros((8, 10)), "b": jnp.zeros(7), "c": jnp.zeros(0)}
    channel = all_gather(top_k(0.05), per_leaf=True)
    assert channel.bits(tree) == (4 + 1) * 64
    assert channel.entries(tree) is None


def test_values_without_indices_are_counted_by_their_number():
    tree = {"a": jnp.zeros((8, 10)), "b": jnp.zeros(20)}
    assert all_gather(random_k(0.05)).entries(tree) == 5
    assert all_gather(dense()).entries(tree) == 100


@pytest.mark.parametrize("per_leaf", [False, True])
def test_messages_are_gathered_once_for_each_dtype(per_leaf):
    trees = [jnp.ones((2, 30), "bfloat16"), jnp.ones((2, 8), "bfloat16")]
    channel = all_gather(top_k(0.1), per_leaf=per_leaf)
    program = jax.make_jaxpr(
        lambda tree: channel.average(tree, channel.init(tree)),
        axis_env=[("workers", 2)],
    )([leaf[0] for leaf in trees])
    # For TPUs there is a branch in which the vector is padded.
    gathered = [
        eqn
        for switch in program.eqns
        for branch in switch.params.get("branches", ())[-1:]
        for eqn in branch.eqns
        if eqn.primitive.name == "all_gather"
    ]
    assert str(program).count("all_gather[") == 2 * len(gathered) == 4
    operands: Tree = [eqn.invars[0].aval for eqn in gathered]
    assert {operand.dtype for operand in operands} <= {
        jnp.dtype("uint16"),
        jnp.dtype("int32"),
    }


@pytest.mark.parametrize("size", [1, 127, 128, 300])
def test_padding_for_tpus_does_not_change_what_is_received(size, monkeypatch):
    sent = jnp.arange(4 * size).reshape(4, size)

    def received():
        return jax.vmap(lambda flat: gather(flat, "workers"), axis_name="workers")(sent)

    plain = received()
    for_tpus = jax.make_jaxpr(
        lambda flat: gather(flat, "workers"), axis_env=[("workers", 4)]
    )(sent[0])
    assert f"i32[4,{-(-size // 128) * 128}] = all_gather" in str(for_tpus)
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda flat, *, tpu, default: tpu(flat)
    )
    np.testing.assert_array_equal(received(), plain)
    np.testing.assert_array_equal(plain[0], sent)
