"""What a user of optax combines with a channel keeps working, however it is run."""

import functools
import itertools

import chex
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
    detached,
    error_feedback,
    exact,
    gmc,
    random_block,
    skip_nonfinite,
    top_k,
)
from tests.support import problems
from tests.support.harness import (
    WORKERS,
    close,
    distribute_if_slow,
    drive,
    pull,
    simulate,
    start,
    step_of,
    targets,
    train,
)

STEPS = 9
CHANNEL = all_gather(top_k(0.2))
GMC = gmc(0.1, CHANNEL)
DENSE = gmc_jax.dmsgd(0.1, exact())


@functools.cache
def batches(steps: int = STEPS):
    return targets(start(), steps)


@functools.cache
def trained(runner, tx):
    """The parameters after `batches()`."""
    return train(runner, tx, batches())[0]


def assert_differs(one, other):
    with pytest.raises(AssertionError):
        close(one, other)


# In front of the channel: what changes each worker's own gradient.


@distribute_if_slow
def test_weight_decay_and_clipping_in_front_belong_to_the_gradient(runner):
    decay, most = 0.1, 5.0
    chained = optax.chain(
        optax.add_decayed_weights(decay), optax.clip_by_global_norm(most), GMC
    )

    def by_hand(state, batch):
        params, opt_state = state
        grads = jax.tree.map(lambda w, b: w - b + decay * w, params, batch)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, most / norm), grads)
        updates, opt_state = GMC.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), norm

    params, _ = train(runner, chained, batches())
    (expected, _), norms = drive(
        runner, by_hand, (start(), GMC.init(start())), batches()
    )
    close(params, expected)
    assert norms.min() < most < norms.max(), "some gradients are clipped, some are not"


# The learning rate.

SCHEDULES = {
    "warm-up from 0": optax.linear_schedule(0.0, 0.1, 4),
    "cosine to 0, and on": optax.cosine_decay_schedule(0.1, 5),
    "both": optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6, 0.0),
}


@distribute_if_slow
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_that_touches_0_gives_heavy_ball(runner, schedule):
    params, _ = train(runner, gmc(schedule, exact()), batches())

    w = before = problems.flat(start()).astype(float)
    pulled_to = problems.flat(batches(), leading=2).mean(axis=1)
    for t in range(STEPS):
        rate = float(schedule(t))
        step = rate * (w - pulled_to[t]) - 0.9 * (w - before) if rate else 0.0
        w, before = w - step, w
    np.testing.assert_allclose(problems.flat(params), w, rtol=1e-5, atol=1e-6)


@distribute_if_slow
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_a_schedule_that_touches_0_leaves_compressed_training_finite(runner, schedule):
    step = step_of(gmc(schedule, CHANNEL))
    state = start(), gmc(schedule, CHANNEL).init(start())
    state, _ = drive(runner, step, state, batches())
    chex.assert_tree_all_finite(state)
    assert_differs(state[0], start())


@distribute_if_slow
@pytest.mark.parametrize("rate", [0.1, optax.cosine_decay_schedule(0.1, STEPS)])
def test_injected_hyperparameters_change_nothing(runner, rate):
    injected = optax.inject_hyperparams(gmc)(
        learning_rate=rate, channel=CHANNEL, momentum=0.8
    )
    params, opt_state = train(runner, injected, batches())
    expected, inner = train(runner, gmc(rate, CHANNEL, momentum=0.8), batches())
    close(params, expected)
    close(opt_state.inner_state[0], inner[0])


@distribute_if_slow
def test_an_injected_rate_can_be_changed_between_steps(runner):
    tx = optax.inject_hyperparams(gmc)(learning_rate=0.1, channel=CHANNEL)

    def halves_its_rate(step, state, batch, **options):
        run, state = runner(step, state, batch, **options)
        calls = itertools.count()

        def then(state, batch):
            params, opt_state = state
            if next(calls) == 4:
                opt_state.hyperparams["learning_rate"] = jnp.array(0.05)
            return run((params, opt_state), batch)

        return then, state

    params, _ = train(halves_its_rate, tx, batches())
    schedule = optax.piecewise_constant_schedule(0.1, {4: 0.5})
    expected, _ = train(runner, gmc(schedule, CHANNEL), batches())
    close(params, expected)
    assert_differs(params, trained(runner, GMC))


# Different leaves, different ways.

KERNELS = {"bias": False, "kernel": True}
BIASES = {"bias": True, "kernel": False}


@functools.cache
def alone(runner, name: str, tx):
    """What becomes of one leaf that is trained as if there were no other."""
    only = {name: start()[name]}
    params, _ = train(runner, tx, {name: batches()[name]}, only)
    return params[name]


@distribute_if_slow
def test_biases_go_dense_and_kernels_compressed_by_partition(runner):
    tx = optax.partition(
        {"dense": DENSE, "compressed": GMC},
        {"bias": "dense", "kernel": "compressed"},
    )
    params, _ = train(runner, tx, batches())
    close(params["bias"], alone(runner, "bias", DENSE))
    close(params["kernel"], alone(runner, "kernel", GMC))


@distribute_if_slow
def test_a_part_may_be_detached(runner):
    away = optax.chain(detached(error_feedback(CHANNEL), 0.5, 0.1), optax.scale(-0.1))
    tx = optax.partition(
        {"dense": DENSE, "detached": away},
        {"bias": "dense", "kernel": "detached"},
    )
    params, _ = train(runner, tx, batches())
    close(params["bias"], alone(runner, "bias", DENSE))
    close(params["kernel"], alone(runner, "kernel", away))
    still = optax.chain(error_feedback(CHANNEL), optax.scale(-0.1))
    assert_differs(params["kernel"], alone(runner, "kernel", still))


@distribute_if_slow
def test_leaves_that_a_mask_lets_pass_are_reported(runner):
    tx = optax.masked(GMC, KERNELS)
    with pytest.raises(ValueError, match=r"state\[0\]\['bias'\].*optax\.partition"):
        train(runner, tx, batches())


@distribute_if_slow
def test_masks_that_leave_no_leaf_out_are_fine(runner):
    tx = optax.chain(optax.masked(GMC, KERNELS), optax.masked(DENSE, BIASES))
    params, _ = train(runner, tx, batches())
    close(params["bias"], alone(runner, "bias", DENSE))
    close(params["kernel"], alone(runner, "kernel", GMC))


# Accumulation.


@distribute_if_slow
@pytest.mark.parametrize("wrap", [accumulate, optax.MultiSteps])
def test_accumulated_gradients_are_means_of_gradients(runner, wrap):
    every = 3
    tx = wrap(GMC, every)
    params, _ = train(runner, tx, batches())

    # The gradient of `pull` is linear in the target.
    means = jax.tree.map(
        lambda b: b.reshape(-1, every, *b.shape[1:]).mean(axis=1), batches()
    )
    expected, _ = train(runner, GMC, means)
    close(params, expected)


def sends(tx) -> gmc_jax.WireBytes:
    batch = jax.tree.map(lambda b: b[0], batches())
    run, state = gmc_jax.distribute(step_of(tx), (start(), tx.init(start())), batch)
    return gmc_jax.wire_bytes(run, state, batch)


@pytest.mark.slow
def test_accumulate_sends_nothing_between_and_multi_steps_all_the_time():
    message = gmc_jax.message_bits(CHANNEL, start()) // 8
    ours = sends(accumulate(GMC, 3))
    theirs = sends(optax.MultiSteps(GMC, 3))
    assert (ours, ours.always) == (message, 0)
    assert (theirs, theirs.always) == (message, message)


# Adam.


@distribute_if_slow
def test_adam_on_each_worker_then_steps_are_averaged(runner):
    tx = optax.chain(optax.scale_by_adam(), averaged(exact()), optax.scale(-0.1))
    params, opt_state = train(runner, tx, batches())
    assert opt_state[0].mu["bias"].shape == (WORKERS, 4)

    expected = start()
    adam = optax.scale_by_adam()
    states = [adam.init(expected)] * WORKERS
    for t in range(STEPS):
        moves = []
        for k in range(WORKERS):
            grads = jax.tree.map(
                lambda w, b, t=t, k=k: w - b[t, k], expected, batches()
            )
            move, states[k] = adam.update(grads, states[k])
            moves.append(move)
        expected = jax.tree.map(
            lambda w, *moves: w - 0.1 * np.mean(moves, axis=0), expected, *moves
        )
    close(params, expected, rtol=1e-4)


@distribute_if_slow
def test_adam_on_the_averaged_gradient(runner):
    tx = optax.chain(averaged(exact()), optax.adam(0.1))
    params, opt_state = train(runner, tx, batches())
    assert optax.tree.get(opt_state, "mu")["bias"].shape == (4,)

    expected = start()
    adam = optax.adam(0.1)
    state = adam.init(expected)
    for t in range(STEPS):
        grads = jax.tree.map(lambda w, b, t=t: w - b[t].mean(0), expected, batches())
        updates, state = adam.update(grads, state)
        expected = optax.apply_updates(expected, updates)
    close(params, expected, rtol=1e-4)


@distribute_if_slow
@pytest.mark.parametrize("order", ["adam, then the channel", "the channel, then adam"])
def test_adam_and_error_feedback_keep_parameters_the_same(runner, order):
    adam, channel = optax.scale_by_adam(), error_feedback(CHANNEL)
    pieces = (adam, channel) if order.startswith("adam") else (channel, adam)
    tx = optax.chain(*pieces, optax.scale(-0.1))
    params, opt_state = train(runner, tx, targets(start(), 30))
    chex.assert_tree_all_finite((params, opt_state))
    # Targets are noise around 0.
    assert np.linalg.norm(problems.flat(params)) < 0.5 * np.linalg.norm(
        problems.flat(start())
    )


# Randomness.


def by_pmap(step, state, batch):
    plan = gmc_jax.layout(step, state, batch, WORKERS)
    axes = (plan.axes, 0)
    run = jax.pmap(step, axis_name="workers", in_axes=axes, out_axes=axes)
    return run, plan.lay_out(state)


def masks(runner, *, own: bool):
    """Which of 32 units four steps of dropout keep, [steps, workers, 32]."""

    def step(state, batch):
        params, opt_state, key = state
        key, now = jax.random.split(key)
        kept = jax.random.bernoulli(gmc_jax.worker_key(now) if own else now, 0.5, (32,))
        (params, opt_state), _ = step_of(GMC)((params, opt_state), batch)
        return (params, opt_state, key), kept

    state = start(), GMC.init(start()), jax.random.PRNGKey(0)
    return drive(runner, step, state, batches(4))[1]


@distribute_if_slow
def test_a_worker_key_gives_every_worker_its_own_dropout(runner):
    own = masks(runner, own=True)
    assert len(np.unique(own.reshape(-1, 32), axis=0)) == 4 * WORKERS
    np.testing.assert_array_equal(own, masks(by_pmap, own=True))


@distribute_if_slow
def test_a_key_of_the_state_gives_all_workers_the_same_dropout(runner):
    shared = masks(runner, own=False)
    assert len(np.unique(shared.reshape(-1, 32), axis=0)) == 4


@distribute_if_slow
def test_typed_keys_may_stand_in_the_state(runner):
    def step(key, batch):
        now = gmc_jax.worker_key(key)
        return jax.random.split(key)[0], jax.random.uniform(now) + 0 * batch

    run, key = runner(step, jax.random.key(0), jnp.zeros(WORKERS))
    key, _ = run(key, jnp.zeros(WORKERS))
    key, draws = run(key, jnp.zeros(WORKERS))
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    assert len(np.unique(draws)) == WORKERS


# Precision.


@distribute_if_slow
@pytest.mark.parametrize(
    "channel",
    [CHANNEL, all_reduce(random_block(0.2))],
    ids=["all_gather", "all_reduce"],
)
def test_bfloat16_parameters_remember_in_float32_and_stay_near(runner, channel):
    steps = 100
    low = jax.tree.map(lambda b: b.astype(jnp.bfloat16), batches(steps))
    params, opt_state = train(runner, gmc(0.02, channel), low, start("bfloat16"))
    momentum = optax.tree.get(opt_state, "momentum")
    residual = optax.tree.get(opt_state, "residual")
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves((momentum, residual))} == {
        np.dtype(np.float32)
    }

    high, _ = train(runner, gmc(0.02, channel), batches(steps))
    gap = problems.flat(params).astype(float) - problems.flat(high)
    assert np.linalg.norm(gap) < 0.05 * np.linalg.norm(problems.flat(start()))


# Other wrappers of optax.


@distribute_if_slow
def test_lookahead_goes_round_gmc(runner):
    tx = optax.lookahead(GMC, sync_period=3, slow_step_size=0.5)
    both = optax.LookaheadParams.init_synced(start())

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(pull)(params.fast, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    (params, _), _ = drive(
        runner, step, (both, tx.init(both)), batches(3), replicated=lambda s: s[0]
    )
    fast, _ = train(runner, GMC, batches(3))
    halfway = jax.tree.map(lambda w, fast: (w + fast) / 2, start(), fast)
    close(params, optax.LookaheadParams(halfway, halfway))


@distribute_if_slow
def test_schedule_free_goes_round_a_compressed_method(runner):
    tx = optax.contrib.schedule_free(gmc_jax.ef_sgd(0.1, CHANNEL), 0.1)
    params, opt_state = train(runner, tx, targets(start(), 60))
    evaluated = optax.contrib.schedule_free_eval_params(opt_state, params)
    assert np.linalg.norm(problems.flat(evaluated)) < 0.3 * np.linalg.norm(
        problems.flat(start())
    )


@distribute_if_slow
def test_a_rate_that_follows_each_workers_own_loss_is_reported(runner):
    tx = optax.chain(GMC, optax.contrib.reduce_on_plateau(patience=1, cooldown=0))

    def step(state, batch, *, together: bool):
        params, opt_state = state
        loss, grads = jax.value_and_grad(pull)(params, batch)
        if together:
            loss, _, _ = exact().average(loss, ())
        updates, opt_state = tx.update(grads, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), loss

    state = start(), tx.init(start())
    options = {"replicated": lambda state: state[0]}
    with pytest.raises(ValueError, match="with this step they differ"):
        drive(
            runner, functools.partial(step, together=False), state, batches(), **options
        )
    drive(runner, functools.partial(step, together=True), state, batches(), **options)


@distribute_if_slow
def test_extra_arguments_reach_what_stands_inside(runner):
    """`value` finds its way through every wrapper of ours."""
    inner = optax.chain(averaged(exact()), optax.contrib.reduce_on_plateau())
    tx = skip_nonfinite(accumulate(gmc_jax.global_momentum(inner, 0.9), period=1))

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(pull)(params, batch)
        loss, _, _ = exact().average(loss, ())
        updates, opt_state = tx.update(grads, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), loss

    (_, opt_state), losses = drive(
        runner, step, (start(), tx.init(start())), batches(1)
    )
    best = optax.tree.get(opt_state, "best_value")
    np.testing.assert_allclose(best, losses[0, 0], rtol=1e-6)


def only_kernels(tx):
    return optax.partition(
        {"trained": tx, "frozen": optax.set_to_zero()},
        {"bias": "frozen", "kernel": "trained"},
    )


OTHERS = {
    "frozen biases": only_kernels(GMC),
    "guarded kernels": only_kernels(skip_nonfinite(accumulate(GMC, 2))),
    "clipped by block": optax.chain(optax.clip_by_block_rms(1.0), GMC),
    "noise": optax.chain(optax.add_noise(0.1, 0.5, 0), GMC),
    "flat": optax.flatten(GMC),
    "named": optax.named_chain(("method", GMC)),
    "injected and guarded": optax.inject_hyperparams(
        lambda learning_rate: skip_nonfinite(gmc(learning_rate, CHANNEL))
    )(learning_rate=0.1),
    "adafactor": optax.chain(averaged(exact()), optax.adafactor(0.01)),
    "muon": optax.chain(averaged(exact()), optax.contrib.muon(0.01)),
}


@pytest.mark.slow
@pytest.mark.parametrize("tx", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_whatever_else_runs_on_all_runners_alike(tx, dtype):
    pulled_to = jax.tree.map(lambda b: b.astype(dtype), batches())
    params, _ = train(simulate, tx, pulled_to, start(dtype))
    expected, _ = train(gmc_jax.distribute, tx, pulled_to, start(dtype))
    assert_differs(params, start(dtype))
    close(params, expected, rtol=1e-5 if dtype == "float32" else 1e-2)


# Transformations of JAX.


@distribute_if_slow
def test_train_may_be_jitted_scanned_and_compiled_ahead(runner):
    batch = jax.tree.map(lambda b: b[0], batches())

    def fresh():
        return runner(step_of(GMC), (start(), GMC.init(start())), batch)

    run, state = fresh()
    expected, _ = run(state, batch)

    run, state = fresh()
    jitted, _ = jax.jit(lambda state, batch: run(state, batch))(state, batch)
    close(jitted, expected)

    _, state = fresh()
    compiled = run.lower(state, batch).compile()
    ahead, _ = compiled(state, batch)
    close(ahead, expected)

    _, state = fresh()
    scanned, _ = jax.lax.scan(run, state, jax.tree.map(lambda b: b[:1], batches()))
    close(scanned, expected)


@pytest.mark.parametrize(
    "tx",
    [
        pytest.param(GMC, id="gmc"),
        pytest.param(
            skip_nonfinite(accumulate(GMC, period=2)),
            id="conditionals",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_seeds_by_vmap_around_simulate(tx):
    seeds = [targets(start(), 4, seed) for seed in range(3)]
    batch = jax.tree.map(lambda b: b[0], seeds[0])
    run, state = simulate(step_of(tx), (start(), tx.init(start())), batch)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    every_seed = jax.jit(jax.vmap(run))
    for t in range(4):
        together = jax.tree.map(lambda *b, t=t: np.stack([x[t] for x in b]), *seeds)
        states, _ = every_seed(states, together)
    for seed, own in enumerate(seeds):
        params, _ = train(simulate, tx, own)
        close(jax.tree.map(lambda leaf, seed=seed: leaf[seed], states[0]), params)
