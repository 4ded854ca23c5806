"""Trains two workers with a quadratic each: Figures 1 and 2 of the GMC paper.

The loss of worker k is F_k(w) = (w - a_k)^T A_k (w - a_k) with a diagonal A_k. The
workers minimise the mean. The paper's constants were not available, so the constants,
the start and the momentum 0.9 are reconstructed. Everything is in double precision.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.table import Table

import gmc_jax
from experiments.studies.quadratic.figures import draw_distances, draw_paths, tail
from experiments.training import record
from experiments.training.compression import Compression
from experiments.training.methods import METHODS, label
from experiments.training.record import Row
from experiments.training.study import Study
from gmc_jax.utils import checks

COMPARED = ("dmsgd", "dgc_unmasked", "dgc", "gmc_server_momentum", "gmc")
PLANE = (2, 1)  # The d and s of the problem whose paths are drawn.
LOGGED = 10  # Steps from one logged distance to the next; paths have all steps.


@dataclass(frozen=True)
class Quadratic:
    """Train two workers with a quadratic each; measure distances to the optimum."""

    steps: int = 4000
    """The number of steps."""
    learning_rate: float = 0.005
    """The constant learning rate."""
    momentum: float = 0.9
    """The momentum of every method."""
    results: Path = Path("results")
    """The directory of results; this run's is `quadratic/run-001` or a later one."""

    def __post_init__(self):
        """Refuses numbers out of range."""
        checks.positive_int(steps=self.steps)
        checks.positive(learning_rate=self.learning_rate)
        checks.decay(momentum=self.momentum)


class Problem(NamedTuple):
    """The quadratics of all workers, and the size of their messages.

    Attributes:
      curvatures: the diagonals of A_k, [workers, d].
      minimisers: a_k, [workers, d].
      start: the parameters at the start, [d].
      s: the number of entries that each worker sends in a step, the largest ones.
    """

    curvatures: np.ndarray
    minimisers: np.ndarray
    start: np.ndarray
    s: int

    @property
    def name(self) -> str:
        """The problem's name in tables, figures and logs."""
        return f"d = {self.start.size}, s = {self.s}"

    @property
    def optimum(self) -> np.ndarray:
        """The minimiser of the mean of the quadratics, [d]."""
        weighted = self.curvatures * self.minimisers
        return weighted.sum(axis=0) / self.curvatures.sum(axis=0)

    def distances(self, path: np.ndarray) -> np.ndarray:
        """Distances of points [steps + 1, d] to the optimum."""
        return np.linalg.norm(path - self.optimum, axis=-1)


def problem(d: int, s: int) -> Problem:
    """Makes the reconstructed problem in d = 2 dimensions, or in a larger even d.

    Where one worker's quadratic is steep, the other's is flat.
    """
    curvature = np.array([1.0, 2.0]) if d == 2 else np.linspace(0.5, 2, d)
    return Problem(
        curvatures=np.stack([curvature, curvature[::-1]]),
        minimisers=np.stack([np.full(d, 10.0), np.full(d, -10.0)]),
        start=np.tile([20.0, 15.0], d // 2),
        s=s,
    )


def trajectory(problem: Problem, method: str, config: Quadratic) -> np.ndarray:
    """The parameters at the start and after each step, [steps + 1, d]."""
    compression = Compression("top_k", problem.s / problem.start.size)
    tx = METHODS[method].build(config.learning_rate, compression, config.momentum)

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
    """Runs every method on every problem; records, prints and draws the distances."""
    record.prepare(config.results / "quadratic")
    settings = asdict(config) | {"methods": COMPARED}
    with record.create(config.results / "quadratic", "run", settings) as log:
        for one in (problem(*PLANE), *(problem(20, s) for s in (1, 5, 10))):
            for method in COMPARED:
                path = trajectory(one, method, config)
                distance = one.distances(path)
                drawn = {"path": _short(path)} if one.start.size == 2 else {}
                log.append(
                    kind="summary",
                    problem=one.name,
                    method=method,
                    tail_mean=tail(distance).mean(),
                    distances=distance[::LOGGED].tolist(),
                    **drawn,
                )
    STUDY.show(log.path)


def _short(path: np.ndarray) -> list[list[float]]:
    return [[float(f"{x:.6g}") for x in point] for point in path]


def _summaries(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The summaries by problem and method."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["kind"] == "summary":
            found.setdefault(row["problem"], {})[row["method"]] = row
    return found


def _table(rows: Sequence[Row]) -> Table:
    problems = _summaries(rows)
    table = Table(title="Distance to the optimum, mean of the last quarter")
    table.add_column("method", no_wrap=True)
    for name in problems:
        table.add_column(name.replace(", ", "\n"), justify="right")
    for method in rows[0]["config"]["methods"]:
        means = (
            f"{each[method]['tail_mean']:.2g}" if method in each else ""
            for each in problems.values()
        )
        table.add_row(label(method), *means)
    return table


def _figures(rows: Sequence[Row]) -> dict[str, Figure]:
    config, problems = rows[0]["config"], _summaries(rows)
    title = (
        f"two workers' quadratics, learning rate {config['learning_rate']:g}, momentum "
        f"{config['momentum']:g}"
    )
    plane = problem(*PLANE)
    paths = {
        method: np.asarray(row["path"], float)
        for method, row in problems.get(plane.name, {}).items()
        if "path" in row  # Older logs have no paths.
    }
    distances = {
        name: {m: np.asarray(row["distances"], float) for m, row in each.items()}
        for name, each in problems.items()
    }
    figures = {"distances": draw_distances(distances, LOGGED, title)}
    if paths:
        figures["paths"] = draw_paths(paths, plane.minimisers, plane.optimum, title)
    return figures


STUDY = Study("summary", "problem", lambda rows: [_table(rows)], _figures)
