"""Each row of the page on optax's transformations says what is so."""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import all_gather, averaged, error_feedback, exact, top_k
from tests.support.harness import WORKERS, start, step_of, targets

PAGE = Path(__file__).parents[2] / "experiments/docs/optax_transformations.md"
CHANNEL = all_gather(top_k(0.2))
METHOD = optax.chain(error_feedback(CHANNEL), optax.sgd(0.1))
# What the page says of the state in front of a channel, of two sides alike, and how
# the transformation is made.
ROWS = {
    "clip_by_global_norm": ("none", "no", lambda: optax.clip_by_global_norm(1.0)),
    "clip": ("none", "no", lambda: optax.clip(0.5)),
    "adaptive_grad_clip": ("none", "no", lambda: optax.adaptive_grad_clip(0.1)),
    "zero_nans": ("own", "no", optax.zero_nans),
    "centralize": ("none", "yes", optax.centralize),
    "normalize_by_update_norm": ("none", "no", optax.normalize_by_update_norm),
    "add_decayed_weights": ("none", "yes", lambda: optax.add_decayed_weights(0.1)),
    "trace": ("own", "yes", lambda: optax.trace(0.9)),
    "ema": ("own", "yes", lambda: optax.ema(0.9)),
    "scale_by_adam": ("own", "no", optax.scale_by_adam),
    "scale_by_rms": ("own", "no", optax.scale_by_rms),
    "scale_by_factored_rms": ("own", "no", optax.scale_by_factored_rms),
    "scale_by_lion": ("own", "no", optax.scale_by_lion),
    "scale_by_sign": ("none", "no", optax.scale_by_sign),
    "scale_by_trust_ratio": ("none", "no", optax.scale_by_trust_ratio),
    "contrib.muon": ("own", "no", lambda: optax.contrib.muon(0.1)),
    "scale_by_schedule": (
        "the same",
        "yes",
        lambda: optax.scale_by_schedule(lambda step: 1 / (1 + step)),
    ),
    "scale": ("none", "yes", lambda: optax.scale(0.5)),
    "add_noise": ("the same", "yes", lambda: optax.add_noise(0.1, 0.5, key=0)),
    "keep_params_nonnegative": ("none", "no", optax.keep_params_nonnegative),
}
every_row = pytest.mark.parametrize("name", ROWS)


def table(heading: str) -> dict[str, list[str]]:
    """The cells of the page's table below a heading, by the name in its first cell."""
    _, text = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")
    section, *_ = text.split("\n## ")
    rows = re.findall(r"^\| `(?:optax\.)?([\w.]+)` \| (.*) \|$", section, re.M)
    return {name: cells.split(" | ") for name, cells in rows}


@functools.cache
def gradients():
    return jax.tree.map(jnp.asarray, targets(start(), 3))


def gradients_for(name: str):
    """Of `zero_nans`, gradients without a NaN would say nothing."""
    if name != "zero_nans":
        return gradients()
    return {**gradients(), "bias": gradients()["bias"].at[0, 0, 0].set(jnp.nan)}


def outputs(tx, grads):
    """What three updates return, on all workers."""

    def worker(grads):
        params, results = start(), []
        state = tx.init(params)
        for step in range(3):
            grad = jax.tree.map(lambda leaf, step=step: leaf[step], grads)
            updates, state = tx.update(grad, state, params)
            results.append(updates)
        return results

    return jax.jit(jax.vmap(worker, in_axes=1, axis_name="workers"))(grads)


def laid_out(tx, **options):
    batch = jax.tree.map(lambda leaf: leaf[0], gradients())
    state = start(), tx.init(start())
    return gmc_jax.layout(step_of(tx), state, batch, WORKERS, **options)


def test_the_page_has_the_rows_that_are_tested():
    said = {name: tuple(cells[:2]) for name, cells in table("Transformations").items()}
    assert said == {name: row[:2] for name, row in ROWS.items()}
    assert table("Around a method").keys() == {
        *("apply_if_finite", "MultiSteps", "masked", "partition"),
        *("inject_hyperparams", "contrib.reduce_on_plateau", "contrib.schedule_free"),
        *("lookahead", "contrib.sam"),
    }


@every_row
def test_the_state_in_front_of_a_channel(name):
    """Parameters are the same on all workers, whatever stands there."""
    said, _, make = ROWS[name]
    differs = laid_out(optax.chain(make(), METHOD)).differs

    of_params, (own, _) = differs
    assert not any(jax.tree.leaves(of_params))
    leaves = jax.tree.leaves(own)
    assert said == ("none" if not leaves else "own" if any(leaves) else "the same")


@pytest.mark.slow
@every_row
def test_either_side_of_an_exact_mean(name):
    _, said, make = ROWS[name]
    grads = gradients_for(name)
    front = outputs(optax.chain(make(), averaged(exact())), grads)
    behind = outputs(optax.chain(averaged(exact()), make()), grads)

    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), front, behind)
    largest = max(jax.tree.leaves(gaps))
    assert (largest < 1e-5) == (said == "yes"), largest


@pytest.mark.slow
@every_row
def test_behind_a_channel_it_does_what_it_does_without_workers(name):
    _, _, make = ROWS[name]
    grads = gradients_for(name)
    behind = outputs(optax.chain(averaged(exact()), make()), grads)
    tx, params = make(), start()
    state = tx.init(params)
    for step, together in enumerate(behind):
        mean = jax.tree.map(lambda leaf, step=step: leaf[step].mean(0), grads)
        alone, state = tx.update(mean, state, params)
        jax.tree.map(
            lambda one, all_: np.testing.assert_allclose(
                all_, jnp.stack([one] * WORKERS), rtol=1e-4, atol=1e-5
            ),
            alone,
            together,
        )


def replicated(tx):
    batch = jax.tree.map(lambda leaf: leaf[0], gradients())
    state = start(), tx.init(start())
    gmc_jax.simulate(
        step_of(tx), state, batch, WORKERS, replicated=lambda state: state[0]
    )


@pytest.mark.parametrize(
    "tx",
    [
        optax.apply_if_finite(METHOD, 3),
        optax.masked(METHOD, {"bias": False, "kernel": True}),
        optax.contrib.sam(METHOD, optax.sgd(0.05)),
    ],
    ids=["apply_if_finite", "masked", "sam"],
)
def test_what_lets_parameters_differ_is_an_error_that_names_them(tx):
    with pytest.raises(ValueError, match="bias"):
        replicated(tx)


def test_what_stands_around_a_method_in_their_place():
    replicated(gmc_jax.skip_nonfinite(METHOD))
    labels = {"bias": "dense", "kernel": "sparse"}
    dense = optax.chain(averaged(exact()), optax.sgd(0.1))
    replicated(optax.partition({"dense": dense, "sparse": METHOD}, labels))
    replicated(optax.inject_hyperparams(lambda rate: gmc_jax.gmc(rate, CHANNEL))(0.1))
    replicated(optax.contrib.schedule_free(METHOD, 0.1))


def test_multi_steps_sends_at_every_step():
    sent = gmc_jax.message_bits(METHOD, start())
    multi = optax.MultiSteps(METHOD, 4).gradient_transformation()
    assert gmc_jax.message_bits(multi, start()) == sent
    assert gmc_jax.message_bits(gmc_jax.accumulate(METHOD, 4), start()) == sent / 4


@pytest.mark.parametrize("whose", ["own", "mean"])
def test_a_plateau_is_one_of_the_mean_loss(whose):
    tx = optax.chain(METHOD, optax.contrib.reduce_on_plateau())

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(
            lambda params: (
                sum(map(jnp.sum, jax.tree.leaves(params))) * batch["bias"].sum()
            )
        )(params)
        value = jax.lax.pmean(loss, "workers") if whose == "mean" else loss
        updates, opt_state = tx.update(grads, opt_state, params, value=value)
        return (optax.apply_updates(params, updates), opt_state), loss

    batch = jax.tree.map(lambda leaf: leaf[0], gradients())
    state = start(), tx.init(start())
    of_params, _ = gmc_jax.layout(step, state, batch, WORKERS).differs
    assert any(jax.tree.leaves(of_params)) == (whose == "own")


def test_an_opaque_sam_keeps_parameters_the_same():
    tx = optax.contrib.sam(METHOD, optax.sgd(0.05), opaque_mode=True)

    def step(state, batch):
        params, opt_state = state

        def grad_fn(params, _):
            return jax.tree.map(jnp.subtract, params, batch)

        grads = grad_fn(params, 0)
        updates, opt_state = tx.update(grads, opt_state, params, grad_fn=grad_fn)
        return (optax.apply_updates(params, updates), opt_state), None

    batch = jax.tree.map(lambda leaf: leaf[0], gradients())
    laid = gmc_jax.layout(step, (start(), tx.init(start())), batch, WORKERS)
    assert not any(jax.tree.leaves(laid.differs[0]))
