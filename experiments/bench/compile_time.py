"""Measures what setting up and compiling a step costs, relative to `dmsgd(exact())`.

The model has the shapes of a transformer and a loss that costs nothing to compile. Each
candidate makes a new method and a new step, so nothing was traced before. It counts the
CPU seconds from `simulate` to the compiled program, on all cores. A first round with a
small model loads what JAX loads once. The other rounds count, by their medians.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

import gmc_jax
from experiments.bench.timing import Bar, report
from experiments.training import record
from experiments.training.study import say
from gmc_jax.utils import checks

State: TypeAlias = Any
Batch: TypeAlias = Any
Make: TypeAlias = Callable[[], optax.GradientTransformation]

RATE = 0.1
RATIO = 0.01
WARM_UP = (0.25, 0.0625, 0.015625, 0.004, 0.001)
"""The ratios of DGC's warm-up, one epoch each; the last one stays."""

EXACT = "DMSGD, exact"
SGD = "optax.sgd, one worker"
BLOCK = "GMC, random_block"
WHOLE = "GMC, top_k"
PER_LEAF = "GMC, top_k, per leaf"
DGC = "DGC, per leaf"
DGC_WARM_UP = "DGC, per leaf, warm-up"

BARS = (
    Bar(BLOCK, EXACT, most=3),
    Bar(WHOLE, EXACT, most=3),
    Bar(PER_LEAF, EXACT, most=5),
    Bar(DGC_WARM_UP, DGC, most=2),
)


@dataclass(frozen=True)
class Compile:
    """Measure what compiling a step costs, relative to `dmsgd(exact())`."""

    leaves: int = 161
    """The number of leaves of the model."""
    width: int = 64
    """The width of the model."""
    workers: int = 8
    """The number of simulated workers."""
    repeats: int = 3
    """The number of rounds that count."""
    results: Path = Path("results")
    """The directory of results; this run's is `bench/compile-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(
            leaves=self.leaves,
            width=self.width,
            workers=self.workers,
            repeats=self.repeats,
        )


def main(config: Compile) -> None:
    """Compiles all candidates; prints and logs the CPU seconds and their ratios."""
    record.prepare(config.results / "bench")
    seconds: dict[str, list[float]] = {name: [] for name in methods()}
    for turn in range(config.repeats + 1):
        leaves = config.leaves if turn else min(config.leaves, 12)
        for name, make in methods().items():
            say(f"Round {turn} of {config.repeats}: {name}, {leaves} leaves")
            params = model(leaves, config.width)
            start = time.process_time()
            compile_step(make(), params, None if name == SGD else config.workers)
            if turn:
                seconds[name].append(time.process_time() - start)
    medians = {name: median(times) for name, times in seconds.items()}
    settings = asdict(config) | {"results": str(config.results)}
    report(config.results, "compile", settings, medians, BARS)


def methods() -> Mapping[str, Make]:
    """How each method is made, by name."""

    def top_k(ratio: float, per_leaf: bool) -> gmc_jax.Channel:
        return gmc_jax.all_gather(gmc_jax.top_k(ratio), per_leaf=per_leaf)

    def warm_up() -> gmc_jax.Channel:
        return gmc_jax.join_channels(
            [top_k(ratio, True) for ratio in WARM_UP], [10, 20, 30, 40]
        )

    block = gmc_jax.random_block(RATIO)
    return {
        EXACT: lambda: gmc_jax.dmsgd(RATE, gmc_jax.exact()),
        SGD: lambda: optax.sgd(RATE),
        BLOCK: lambda: gmc_jax.gmc(RATE, gmc_jax.all_reduce(block)),
        WHOLE: lambda: gmc_jax.gmc(RATE, top_k(RATIO, False)),
        PER_LEAF: lambda: gmc_jax.gmc(RATE, top_k(RATIO, True)),
        DGC: lambda: gmc_jax.dgc(RATE, top_k(WARM_UP[-1], True)),
        DGC_WARM_UP: lambda: gmc_jax.dgc(RATE, warm_up()),
    }


def model(leaves: int, width: int) -> list[jax.Array]:
    """The parameters of a transformer: two embeddings, then blocks of twelve leaves."""
    block = [
        *[(width,), (width,), (width, 3 * width), (3 * width,)],
        *[(width, width), (width,), (width,), (width,)],
        *[(width, 4 * width), (4 * width,), (4 * width, width), (width,)],
    ]
    embeddings = [(4 * width, width), (2 * width, width)]
    shapes = [*embeddings, *block * (1 + leaves // len(block))]
    return [jnp.zeros(shape) for shape in shapes[:leaves]]


def compile_step(
    tx: optax.GradientTransformation, params: list[jax.Array], workers: int | None
) -> jax.stages.Compiled:
    """Compiles a step of simulated workers, or a plain step if there are none."""

    def loss_of(params: list[jax.Array], batch: jax.Array) -> jax.Array:
        return sum((jnp.sum((x - batch) ** 2) for x in params), jnp.zeros(()))

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        params, opt_state = state
        loss, gradients = jax.value_and_grad(loss_of)(
            gmc_jax.query(opt_state, params), batch
        )
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    state = (params, tx.init(params))
    if workers is None:
        return jax.jit(step, donate_argnums=0).lower(state, jnp.ones(())).compile()
    batch = jnp.ones(workers)
    train, state = gmc_jax.simulate(step, state, batch, workers)
    return train.lower(state, batch).compile()
