"""Two workers, two quadratics: Figures 1 and 2 of the GMC paper.

Worker k loses F_k(w) = (w - a_k)^T A_k (w - a_k) with a diagonal A_k, and together they
lose the mean. The paper's constants are not known: these, the starts and the momentum
0.9 are a reconstruction. Everything is in double precision.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import gmc_jax
from experiments import record
from experiments.messages import Messages
from experiments.methods import METHODS
from experiments.quadratic_figures import draw_distances, draw_paths, tail
from gmc_jax import checks

COMPARED = ("dmsgd", "dgc_unmasked", "dgc", "gmc_server_momentum", "gmc")
LOGGED = 10  # Every so many steps; the figures show every step.


@dataclass(frozen=True)
class Quadratic:
    """Two workers, two quadratics: trajectories and distances to the optimum."""

    steps: int = 4000
    """Steps to take."""
    learning_rate: float = 0.005
    """The constant rate."""
    momentum: float = 0.9
    """The momentum of every method."""
    results: Path = Path("results")
    """Where a new directory, `quadratic/run-001` or a later number, is made."""

    def __post_init__(self):
        """Refuses numbers that make no walk."""
        checks.positive(steps=self.steps)
        checks.magnitude(learning_rate=self.learning_rate)
        checks.decay(momentum=self.momentum)


class Problem(NamedTuple):
    """The quadratics of all workers, and how much each of them may send.

    Attributes:
      curvatures: the diagonals of A_k, [workers, d].
      minimisers: a_k, [workers, d].
      start: where all methods begin, [d].
      s: how many coordinates each worker sends in a step, the largest.
    """

    curvatures: np.ndarray
    minimisers: np.ndarray
    start: np.ndarray
    s: int

    @property
    def name(self) -> str:
        """What tables, figures and logs call it."""
        return f"d = {self.start.size}, s = {self.s}"

    @property
    def optimum(self) -> np.ndarray:
        """Where the mean of the quadratics is least, [d]."""
        weighted = self.curvatures * self.minimisers
        return weighted.sum(axis=0) / self.curvatures.sum(axis=0)

    def distances(self, path: np.ndarray) -> np.ndarray:
        """From points [steps + 1, d] to the optimum."""
        return np.linalg.norm(path - self.optimum, axis=-1)


def problem(d: int, s: int) -> Problem:
    """The reconstruction: d = 2, whose paths can be drawn, or a larger even d.

    What one worker's quadratic is steep in, the other's is flat in.
    """
    curvature = np.array([1.0, 2.0]) if d == 2 else np.linspace(0.5, 2, d)
    return Problem(
        curvatures=np.stack([curvature, curvature[::-1]]),
        minimisers=np.stack([np.full(d, 10.0), np.full(d, -10.0)]),
        start=np.tile([20.0, 15.0], d // 2),
        s=s,
    )


def walk(problem: Problem, method: str, config: Quadratic) -> np.ndarray:
    """Where `method` is before the first step and after each, [steps + 1, d]."""
    messages = Messages("top_k", problem.s / problem.start.size)
    tx = METHODS[method].build(config.learning_rate, messages, config.momentum)

    def loss_fn(params, batch):
        curvature, minimiser = batch
        return jnp.sum(curvature * (params - minimiser) ** 2)

    def step(state, batch):
        params, opt_state = state
        grads = jax.grad(loss_fn)(gmc_jax.query(opt_state, params), batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    with jax.enable_x64(True):
        params = jnp.asarray(problem.start)
        batch = (jnp.asarray(problem.curvatures), jnp.asarray(problem.minimisers))
        workers = len(problem.minimisers)
        train, state = gmc_jax.simulate(step, (params, tx.init(params)), batch, workers)

        @jax.jit
        def loop(state, batch):
            def advance(state, _):
                state, _ = train(state, batch)
                return state, state[0]

            return jax.lax.scan(advance, state, length=config.steps)[1]

        return np.concatenate([[problem.start], loop(state, batch)])


def main(config: Quadratic) -> None:
    """Runs every method on every problem; leaves a table, two figures and a log."""
    record.prepare(config.results)
    problems = [problem(2, 1), *(problem(20, s) for s in (1, 5, 10))]
    paths = {p.name: {m: walk(p, m, config) for m in COMPARED} for p in problems}
    distances = {
        p.name: {method: p.distances(path) for method, path in paths[p.name].items()}
        for p in problems
    }
    settings = asdict(config) | {"methods": COMPARED}
    with record.create(config.results / "quadratic", "run", settings) as log:
        plane = problems[0]
        draw_paths(
            log.path / "paths.png", paths[plane.name], plane.minimisers, plane.optimum
        )
        draw_distances(log.path / "distances.png", distances)
        for name, walked in distances.items():
            for method, distance in walked.items():
                log.append(
                    kind="summary",
                    problem=name,
                    method=method,
                    tail_mean=tail(distance).mean(),
                    distances=distance[::LOGGED].tolist(),
                )
    console = Console()
    console.print(_table(distances))
    console.print(f"Figures and log: {log.path}")


def _table(distances: dict[str, dict[str, np.ndarray]]) -> Table:
    table = Table(title="Distance to the optimum, mean of the last quarter")
    table.add_column("method", no_wrap=True)
    for name in distances:
        table.add_column(name.replace(", ", "\n"), justify="right")
    for method in COMPARED:
        means = (f"{tail(each[method]).mean():.2g}" for each in distances.values())
        table.add_row(METHODS[method].label, *means)
    return table
