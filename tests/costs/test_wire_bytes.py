"""Tests of `wire_bytes`: devices, meshes, conditionals and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    all_reduce,
    averaged,
    exact,
    gmc,
    random_k,
    skip_nonfinite,
    top_k,
    wire_bytes,
)
from tests.support.small_model import (
    WORKERS,
    D,
    distributed,
    gradients,
    params,
    step_of,
)

TOP_K = all_gather(top_k(0.1))


def over_workers(fn):
    """Maps a function of one worker's vector over workers, one a device."""
    mesh = Mesh(np.array(jax.devices()), ("workers",))
    own = PartitionSpec("workers")
    return jax.shard_map(fn, mesh=mesh, in_specs=own, out_specs=own, check_vma=False)


def test_one_device_sends_nothing():
    """This holds for simulated workers and for a single worker."""
    tx = gmc(0.1, TOP_K)
    state, batch = (params(), tx.init(params())), gradients()
    train, laid_out = gmc_jax.simulate(step_of(tx), state, batch, WORKERS)
    assert wire_bytes(train, laid_out, batch) == 0
    assert wire_bytes(train, laid_out, batch).operations == ()

    mesh = Mesh(np.array(jax.devices()[:1]), ("workers",))
    for channel in (exact(), TOP_K, all_reduce(random_k(0.1))):
        tx = averaged(channel)
        own_batch = jax.tree.map(lambda x: x[:1], batch)
        state = params(), tx.init(params())
        train, laid_out = gmc_jax.distribute(step_of(tx), state, own_batch, mesh=mesh)
        assert wire_bytes(train, laid_out, own_batch) == 0


def test_pmap_sends_as_much():
    tx = gmc(0.1, TOP_K)
    state, batch = (params(), tx.init(params())), gradients()
    state_layout = gmc_jax.layout(step_of(tx), state, batch, WORKERS)
    axes = (state_layout.axes, 0)
    train = jax.pmap(step_of(tx), axis_name="workers", in_axes=axes, out_axes=axes)
    assert wire_bytes(train, state_layout.lay_out(state), batch) == 24


def test_the_devices_of_a_worker_add_up_and_send_each_other_nothing():
    """Each of two devices sends two of three values, and as many indices."""
    tx = gmc(0.1, TOP_K)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("workers", "model"))
    batch = jax.tree.map(lambda x: x[:4], gradients())
    state = params(), tx.init(params())
    train, state = gmc_jax.distribute(step_of(tx), state, batch, mesh=mesh)
    sent = wire_bytes(train, state, batch)
    assert sent == sent.always == 32
    assert sent.operations == (("all-gather", 16, False, 1),) * 2
    # Without an axis of workers, all that a device puts into collectives counts.
    assert wire_bytes(train, state, batch, axis_name="none") > 32


def test_accumulated_steps_send_only_when_complete():
    tx = accumulate(gmc(0.1, TOP_K), 4)
    sent = wire_bytes(*distributed(tx))
    assert (sent, sent.always) == (24, 0)
    assert all(operation.conditional for operation in sent.operations)


def test_multi_steps_of_optax_send_at_every_step():
    """The reason for `accumulate`."""
    tx = optax.MultiSteps(gmc(0.1, TOP_K), 4)
    sent = wire_bytes(*distributed(tx.gradient_transformation()))
    assert (sent, sent.always) == (24, 24)


def test_the_guard_always_sends_one_float_and_another_if_it_does_not_skip():
    sent = wire_bytes(*distributed(skip_nonfinite(gmc(0.1, TOP_K))))
    assert (sent, sent.always) == (4 + 24 + 4, 4)
    assert {operation[:3] for operation in sent.operations} == {
        ("all-reduce", 4, False),
        ("all-reduce", 4, True),
        ("all-gather", 12, True),
    }


def test_a_conditional_counts_as_the_larger_branch():
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
