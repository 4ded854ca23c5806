"""Times a simulated step of GMC for all workers, relative to a step of momentum SGD.

Both train ResNet-20 on the same number of synthetic images in a step: GMC on one batch
for each worker, momentum SGD on one batch of all images. The candidates take turns as
in `timing`. Each has its own state, which is donated.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gmc_jax
from experiments.bench.timing import Bar, Candidate, report, take_turns
from experiments.models.networks import MODELS
from experiments.training import record
from gmc_jax.utils import checks

State: TypeAlias = Any
Batch: TypeAlias = Any

CLASSES = 10
RATE = 0.01

SGD = "SGD, one batch"
UNROLLED = "GMC, unrolled"
BATCHED = "GMC, batched by vmap"
GRADIENTS = "gradients alone, unrolled"
GRADIENTS_BATCHED = "gradients alone, batched"

BARS = (Bar(UNROLLED, SGD, most=2),)


@dataclass(frozen=True)
class Simulate:
    """Time a simulated step of GMC, relative to a step of momentum SGD."""

    workers: int = 8
    """The number of simulated workers."""
    batch_size: int = 16
    """Images in the batch of one worker."""
    image_size: int = 32
    """The height and width of the images, which have three channels."""
    model: Literal["resnet20_gn", "mlp"] = "resnet20_gn"
    """The network."""
    ratio: float = 0.001
    """The share of the entries that a message holds."""
    repeats: int = 9
    """The number of rounds that are timed."""
    results: Path = Path("results")
    """The directory of results; this run's is `bench/simulate-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(
            workers=self.workers,
            batch_size=self.batch_size,
            image_size=self.image_size,
            repeats=self.repeats,
        )
        checks.fraction(ratio=self.ratio)


def main(config: Simulate) -> None:
    """Times all candidates; prints and logs the medians, their ratios and the bars."""
    record.prepare(config.results / "bench")
    medians = take_turns(candidates(config), config.repeats)
    settings = asdict(config) | {"results": str(config.results)}
    report(config.results, "simulate", settings, medians, BARS)


def candidates(config: Simulate) -> dict[str, Candidate]:
    """Makes the candidates; each takes a step, or computes gradients only."""
    draw = np.random.default_rng(0)
    shape = (config.workers, config.batch_size)
    pixels = (config.image_size, config.image_size, 3)
    images = jnp.asarray(draw.standard_normal((*shape, *pixels), dtype=np.float32))
    labels = jnp.asarray(draw.integers(CLASSES, size=shape))
    model = MODELS[config.model](CLASSES)
    params = model.init(jax.random.key(0), images[0, :1], train=False)

    def loss_fn(params, batch):
        images, labels = batch
        logits = jnp.asarray(model.apply(params, images, train=True))
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    gradient = jax.value_and_grad(loss_fn)
    sgd = optax.sgd(RATE, momentum=0.9)
    gmc = gmc_jax.gmc(RATE, gmc_jax.all_gather(gmc_jax.top_k(config.ratio)))

    def simulated(gradient):
        return gmc_jax.simulate(
            _step(gmc, gradient), (params, gmc.init(params)), batch, config.workers
        )

    batch = (images, labels)
    together = (images.reshape(-1, *pixels), labels.reshape(-1))
    plain = jax.jit(_step(sgd, gradient), donate_argnums=0)
    # A copy: the state is donated, and all candidates start from these parameters.
    state = jax.tree.map(jnp.copy, (params, sgd.init(params)))
    return {
        SGD: _candidate(plain, state, together),
        UNROLLED: _candidate(*simulated(gmc_jax.unrolled(gradient)), batch),
        BATCHED: _candidate(*simulated(gradient), batch),
        GRADIENTS: _candidate(_gradients(gmc_jax.unrolled(gradient)), params, batch),
        GRADIENTS_BATCHED: _candidate(_gradients(gradient), params, batch),
    }


def _gradients(gradient: Callable):
    """Computes all workers' losses and gradients, and does not use them."""

    @jax.jit
    def step(params, batch):
        return params, jax.vmap(gradient, in_axes=(None, 0))(params, batch)

    return step


def _step(tx: optax.GradientTransformation, gradient: Callable):
    def step(state, batch):
        params, opt_state = state
        loss, grads = gradient(gmc_jax.query(opt_state, params), batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return step


def _candidate(train: Callable, state: State, batch: Batch) -> Candidate:
    def once():
        nonlocal state
        state, loss = jax.block_until_ready(train(state, batch))
        return loss

    return once
