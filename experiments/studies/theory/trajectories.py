"""Walks of GMC and GMC+, and what the lemmas of their theory speak of on the way."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from gmc_jax.core import Tree

MOMENTUM = 0.9
D = 20
SAMPLES = 256

METHODS: Mapping[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "gmc": gmc_jax.gmc,
    "gmc_plus": gmc_jax.gmc_plus,
}
COMPRESSORS: Mapping[str, Callable[[float], gmc_jax.Compressor]] = {
    "dense": lambda ratio: gmc_jax.dense(),
    "top_k": gmc_jax.top_k,
    "random_k": gmc_jax.random_k,
    "random_block": gmc_jax.random_block,
    "scaled_sign": lambda ratio: gmc_jax.scaled_sign(),
}
# The losses are r^2 / (1 + bend r^2); the second is not convex, as it bends down where
# |r| > 1 / sqrt(3).
BENDS = {"quadratic": 0.0, "robust": 1.0}


class Problem(NamedTuple):
    """Linear regression that is the same for any number of workers.

    On sample i worker k loses loss(a_i w - b_i) + h_k w, and draws its i anew at each
    step. The tilts h_k add up to zero: workers disagree, yet neither the mean loss nor
    the variance of one worker's gradient depends on how many workers there are.

    Attributes:
      inputs: a_i, [SAMPLES, D].
      outputs: b_i, [SAMPLES].
    """

    inputs: np.ndarray
    outputs: np.ndarray


class Setting(NamedTuple):
    """One walk.

    Attributes:
      method: a name in `METHODS`.
      compressor: a name in `COMPRESSORS`.
      ratio: the share of the coordinates that it keeps, where it has one.
      loss: a name in `BENDS`.
      workers: their number.
      rate: the constant learning rate.
      steps: how many.
    """

    method: str
    compressor: str
    ratio: float
    loss: str
    workers: int
    rate: float
    steps: int


class Walk(NamedTuple):
    """What was met on a walk; expectations are means over seeds.

    Attributes:
      gradient: |grad f(w_t)|^2, its mean over the steps, [seeds].
      fell: f(w_0) - f(w_T), [seeds].
      owed: E|e_t|^2, the largest of all steps, [workers].
      entered: E|u_t - e_t|^2, the square of what enters the error feedback, likewise.
      kept: 1 - |x - C(x)|^2 / |x|^2, the smallest of all.
      gap: E|z_t - w_t|^2 of the virtual iterate z_t, the largest of all steps.
    """

    gradient: np.ndarray
    fell: np.ndarray
    owed: np.ndarray
    entered: np.ndarray
    kept: np.ndarray
    gap: np.ndarray


def problem() -> Problem:
    """Normal inputs of D entries, and outputs that are half noise."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(SAMPLES, D))
    truth = draw.normal(size=D) / np.sqrt(D)
    return Problem(inputs, inputs @ truth + draw.normal(size=SAMPLES))


def tilts(workers: int) -> np.ndarray:
    """The h_k, [workers, D]: one of length 1, then its opposite; zero for one alone."""
    if workers == 1:
        return np.zeros((1, D))
    half = np.random.default_rng(1).normal(size=(workers // 2, D))
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return np.stack([half, -half], axis=1).reshape(workers, D)


def follow(setting: Setting, problem: Problem, seeds: int) -> Walk:
    """Walks from zero, once a seed, in double precision.

    A seed is of the samples that are drawn and of the compressor.
    """
    with jax.enable_x64(True):
        run = _walker(
            setting.method, setting.compressor, setting.ratio, setting.workers, seeds
        )
        met = run(
            *map(jnp.asarray, problem),
            jnp.asarray(tilts(setting.workers)),
            jnp.asarray(BENDS[setting.loss]),
            jnp.asarray(setting.rate),
            jnp.asarray(setting.steps),
        )
        return Walk(**jax.tree.map(np.asarray, met))


class _WatchedState(NamedTuple):
    given: Tree
    inner: Tree


def _watched(channel: gmc_jax.Channel) -> gmc_jax.Channel:
    """Keeps in its state what it was last given to average."""

    def init(params):
        return _WatchedState(params, channel.init(params))

    def average(tree, state):
        mean, lost, inner = channel.average(tree, state.inner)
        return mean, lost, _WatchedState(tree, inner)

    return channel._replace(init=init, average=average)


def _loss(params: jax.Array, a: jax.Array, b: jax.Array, bend: jax.Array) -> jax.Array:
    square = jnp.square(a @ params - b)
    return square / (1 + bend * square)


def _mean_loss(
    params: jax.Array, inputs: jax.Array, outputs: jax.Array, bend: jax.Array
) -> jax.Array:
    return jax.vmap(_loss, (None, 0, 0, None))(params, inputs, outputs, bend).mean()


@cache
def _walker(
    method: str, compressor: str, ratio: float, workers: int, seeds: int
) -> Callable[..., dict[str, jax.Array]]:
    """Returns the fields of a walk; one program for all losses, rates and steps."""
    code = COMPRESSORS[compressor](ratio)
    over = gmc_jax.all_reduce if code.shared else gmc_jax.all_gather

    def build(rate, seed):
        channel = _watched(over(code, seed=seed))
        return METHODS[method](rate, channel, momentum=MOMENTUM)

    def walk(inputs, outputs, tilts, bend, rate, steps):
        def step(state, batch):
            params, opt_state, seed = state
            a, b, tilt = batch
            point = gmc_jax.query(opt_state, params)
            grads = jax.grad(_loss)(point, a, b, bend) + tilt
            before = optax.tree.get(opt_state, "residual")
            updates, opt_state = build(rate, seed).update(grads, opt_state, params)
            after = optax.tree.get(opt_state, "residual")
            given = optax.tree.get(opt_state, "given")
            met = {
                "residual": after,
                "owed": jnp.sum(after**2),
                "entered": jnp.sum((given - before) ** 2),
                "given": jnp.sum(given**2),
            }
            return (optax.apply_updates(params, updates), opt_state, seed), met

        own = jnp.arange(seeds)
        keys = jax.random.split(jax.random.key(seeds), seeds)
        start = jnp.zeros(D)
        first = (start, build(rate, own[0]).init(start), own[0])
        example = (inputs[:workers], outputs[:workers], tilts)
        train, first = gmc_jax.simulate(
            step, first, example, workers, replicated=lambda state: state[0]
        )
        everywhere = jax.vmap(train, (0, (0, 0, None)))
        gradient = jax.vmap(jax.grad(_mean_loss), (0, None, None, None))

        def choose(key, t):
            return jax.random.randint(
                jax.random.fold_in(key, t), (workers,), 0, SAMPLES
            )

        def advance(t, carry):
            state, far = carry
            params = state[0]
            chosen = jax.vmap(choose, (0, None))(keys, t)
            batch = (inputs[chosen], outputs[chosen], tilts)
            state, met = everywhere(state, batch)
            coasting = MOMENTUM * (state[0] - params)
            gap = (coasting - rate * met["residual"].mean(axis=1)) / (1 - MOMENTUM)
            kept = 1 - met["owed"] / met["given"]
            slope = gradient(params, inputs, outputs, bend)
            return state, {
                "gradient": far["gradient"] + jnp.sum(slope**2, axis=1) / steps,
                "owed": jnp.maximum(far["owed"], met["owed"].mean(axis=0)),
                "entered": jnp.maximum(far["entered"], met["entered"].mean(axis=0)),
                "kept": jnp.minimum(far["kept"], kept.min()),
                "gap": jnp.maximum(far["gap"], jnp.sum(gap**2, axis=1).mean()),
            }

        far = {
            "gradient": jnp.zeros(seeds),
            "owed": jnp.zeros(workers),
            "entered": jnp.zeros(workers),
            "kept": jnp.ones(()),
            "gap": jnp.zeros(()),
        }
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds), first)
        state = (*state[:2], own)
        state, far = jax.lax.fori_loop(0, steps, advance, (state, far))
        value = jax.vmap(_mean_loss, (0, None, None, None))
        end = value(state[0], inputs, outputs, bend)
        return far | {"fell": _mean_loss(start, inputs, outputs, bend) - end}

    return jax.jit(walk)
