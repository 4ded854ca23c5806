"""Trajectories of GMC and GMC+, with the quantities of the theory's lemmas."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.training.compression import COMPRESSORS as EVERY_COMPRESSOR
from gmc_jax.core import Tree

MOMENTUM = 0.9
D = 20
SAMPLES = 256

METHODS: Mapping[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "gmc": gmc_jax.gmc,
    "gmc_plus": gmc_jax.gmc_plus,
}
COMPRESSORS = {
    name: EVERY_COMPRESSOR[name]
    for name in ("dense", "top_k", "random_k", "random_block", "scaled_sign")
}
# The losses are r^2 / (1 + bend r^2). The second one is not convex: it is concave where
# |r| > 1 / sqrt(3).
BENDS = {"quadratic": 0.0, "robust": 1.0}


class Problem(NamedTuple):
    """A linear regression that is the same for any number of workers.

    The loss of worker k on sample i is loss(a_i w - b_i) + h_k w. Each worker draws its
    sample anew at each step. The tilts h_k add up to zero. So the workers disagree, but
    the mean loss and the variance of a worker's gradient do not depend on the number of
    workers.

    Attributes:
      inputs: a_i, [SAMPLES, D].
      outputs: b_i, [SAMPLES].
    """

    inputs: np.ndarray
    outputs: np.ndarray


class Setting(NamedTuple):
    """What determines a trajectory. Its fields are columns of kept logs.

    Attributes:
      method: a name in `METHODS`.
      compressor: a name in `COMPRESSORS`.
      ratio: the share of the entries in a message, for compressors with a ratio.
      loss: a name in `BENDS`.
      workers: the number of workers.
      rate: the constant learning rate.
      steps: the number of steps.
    """

    method: str
    compressor: str
    ratio: float
    loss: str
    workers: int
    rate: float
    steps: int


class Trajectory(NamedTuple):
    """Measurements on a trajectory. Its fields are columns of kept logs.

    Expectations are means over seeds.

    Attributes:
      gradient: the mean of |grad f(w_t)|^2 over the steps, [seeds].
      fell: f(w_0) - f(w_T), [seeds].
      owed: the largest E|e_t|^2 of all steps, for the residual e_t, [workers].
      entered: the largest E|u_t - e_t|^2 of all steps, for the input of the error
        feedback, [workers].
      kept: the smallest 1 - |x - C(x)|^2 / |x|^2 of all steps, workers and seeds.
      gap: the largest E|z_t - w_t|^2 of all steps, for the virtual iterate z_t.
    """

    gradient: np.ndarray
    fell: np.ndarray
    owed: np.ndarray
    entered: np.ndarray
    kept: np.ndarray
    gap: np.ndarray


def problem() -> Problem:
    """Draws normal inputs of D entries, and outputs that are half noise."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(SAMPLES, D))
    truth = draw.normal(size=D) / np.sqrt(D)
    return Problem(inputs, inputs @ truth + draw.normal(size=SAMPLES))


def tilts(workers: int) -> np.ndarray:
    """The h_k, [workers, D]: pairs of opposite unit vectors; zero for one worker."""
    if workers == 1:
        return np.zeros((1, D))
    half = np.random.default_rng(1).normal(size=(workers // 2, D))
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return np.stack([half, -half], axis=1).reshape(workers, D)


def follow(setting: Setting, problem: Problem, seeds: int) -> Trajectory:
    """Computes a trajectory from w = 0 for each seed, in double precision.

    A seed determines the samples and the compressor's draws.
    """
    with jax.enable_x64(True):
        run = _compiled(
            setting.method, setting.compressor, setting.ratio, setting.workers, seeds
        )
        measured = run(
            *map(jnp.asarray, problem),
            jnp.asarray(tilts(setting.workers)),
            jnp.asarray(BENDS[setting.loss]),
            jnp.asarray(setting.rate),
            jnp.asarray(setting.steps),
        )
        return Trajectory(**jax.tree.map(np.asarray, measured))


class _RecordingState(NamedTuple):
    averaged: Tree
    inner: Tree


def _recording(channel: gmc_jax.Channel) -> gmc_jax.Channel:
    """Makes a channel keep in its state the tree that it averaged last."""

    def init(params):
        return _RecordingState(params, channel.init(params))

    def average(tree, state):
        mean, lost, inner = channel.average(tree, state.inner)
        return mean, lost, _RecordingState(tree, inner)

    return channel._replace(init=init, average=average)


def _loss(params: jax.Array, a: jax.Array, b: jax.Array, bend: jax.Array) -> jax.Array:
    square = jnp.square(a @ params - b)
    return square / (1 + bend * square)


def _mean_loss(
    params: jax.Array, inputs: jax.Array, outputs: jax.Array, bend: jax.Array
) -> jax.Array:
    return jax.vmap(_loss, (None, 0, 0, None))(params, inputs, outputs, bend).mean()


@cache
def _compiled(
    method: str, compressor: str, ratio: float, workers: int, seeds: int
) -> Callable[..., dict[str, jax.Array]]:
    """Compiles trajectories; one program serves all losses, rates and steps."""
    made = COMPRESSORS[compressor](ratio)
    factory = gmc_jax.all_reduce if made.shared else gmc_jax.all_gather

    def build(rate, seed):
        channel = _recording(factory(made, seed=seed))
        return METHODS[method](rate, channel, momentum=MOMENTUM)

    def trajectory(inputs, outputs, tilts, bend, rate, steps):
        def step(state, batch):
            params, opt_state, seed = state
            a, b, tilt = batch
            point = gmc_jax.query(opt_state, params)
            grads = jax.grad(_loss)(point, a, b, bend) + tilt
            before = optax.tree.get(opt_state, "residual")
            updates, opt_state = build(rate, seed).update(grads, opt_state, params)
            after = optax.tree.get(opt_state, "residual")
            averaged = optax.tree.get(opt_state, "averaged")
            measured = {
                "residual": after,
                "owed": jnp.sum(after**2),
                "entered": jnp.sum((averaged - before) ** 2),
                "averaged": jnp.sum(averaged**2),
            }
            return (optax.apply_updates(params, updates), opt_state, seed), measured

        numbers = jnp.arange(seeds)
        keys = jax.random.split(jax.random.key(seeds), seeds)
        start = jnp.zeros(D)
        first = (start, build(rate, numbers[0]).init(start), numbers[0])
        example = (inputs[:workers], outputs[:workers], tilts)
        train, first = gmc_jax.simulate(
            step, first, example, workers, replicated=lambda state: state[0]
        )
        all_seeds = jax.vmap(train, (0, (0, 0, None)))
        gradient = jax.vmap(jax.grad(_mean_loss), (0, None, None, None))

        def choose(key, t):
            return jax.random.randint(
                jax.random.fold_in(key, t), (workers,), 0, SAMPLES
            )

        def advance(t, carry):
            state, so_far = carry
            params = state[0]
            chosen = jax.vmap(choose, (0, None))(keys, t)
            batch = (inputs[chosen], outputs[chosen], tilts)
            state, measured = all_seeds(state, batch)
            next_momentum = MOMENTUM * (state[0] - params)
            residual = measured["residual"].mean(axis=1)
            # The virtual iterate minus the parameters.
            gap = (next_momentum - rate * residual) / (1 - MOMENTUM)
            kept = 1 - measured["owed"] / measured["averaged"]
            owed, entered = (measured[x].mean(axis=0) for x in ("owed", "entered"))
            slope = gradient(params, inputs, outputs, bend)
            return state, {
                "gradient": so_far["gradient"] + jnp.sum(slope**2, axis=1) / steps,
                "owed": jnp.maximum(so_far["owed"], owed),
                "entered": jnp.maximum(so_far["entered"], entered),
                "kept": jnp.minimum(so_far["kept"], kept.min()),
                "gap": jnp.maximum(so_far["gap"], jnp.sum(gap**2, axis=1).mean()),
            }

        so_far = {
            "gradient": jnp.zeros(seeds),
            "owed": jnp.zeros(workers),
            "entered": jnp.zeros(workers),
            "kept": jnp.ones(()),
            "gap": jnp.zeros(()),
        }
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds), first)
        state = (*state[:2], numbers)
        state, so_far = jax.lax.fori_loop(0, steps, advance, (state, so_far))
        value = jax.vmap(_mean_loss, (0, None, None, None))
        end = value(state[0], inputs, outputs, bend)
        return so_far | {"fell": _mean_loss(start, inputs, outputs, bend) - end}

    return jax.jit(trajectory)
