"""What MATCHA solves before training: matchings, probabilities and a weight."""

from __future__ import annotations

from types import ModuleType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pairs: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs of neighbours; no worker is in two of them."""
Floats: TypeAlias = NDArray[np.float64]

_ROUNDS = 300
_PRECISION = 1e-6  # Of lambda_2, in parts of what all matchings together have.


def matchings_of(edges: NDArray[np.bool_]) -> tuple[Pairs, ...]:
    """Splits the edges of a graph into matchings.

    Each edge, in order, joins the first matching that has neither of its workers. So
    there are fewer than twice as many matchings as the busiest worker has neighbours,
    and at least as many.

    Args:
      edges: [workers, workers], symmetric.
    """
    matchings: list[list[tuple[int, int]]] = []
    taken: list[set[int]] = []
    for one, other in np.argwhere(np.triu(edges)).tolist():
        free = (at for at, busy in enumerate(taken) if not busy & {one, other})
        place = next(free, len(matchings))
        if place == len(matchings):
            matchings.append([])
            taken.append(set())
        matchings[place].append((one, other))
        taken[place].update((one, other))
    return tuple(map(tuple, matchings))


def laplacian(workers: int, pairs: Pairs) -> Floats:
    """The Laplacian of a matching: degrees on the diagonal, -1 for each pair."""
    matrix = np.zeros((workers, workers))
    for one, other in pairs:
        matrix[one, one] += 1
        matrix[other, other] += 1
        matrix[one, other] = matrix[other, one] = -1
    return matrix


def best_probabilities(laplacians: Floats, budget: float) -> Floats:
    """Maximises lambda_2 of sum_j p_j L_j over sum_j p_j <= budget * M, 0 <= p <= 1.

    lambda_2 is concave in p: the least of v' (sum_j p_j L_j) v over unit vectors v
    whose mean is zero. Eigenvectors at one p after another give linear bounds, and a
    linear program maximises the least of them (Kelley's cutting planes), until it
    exceeds lambda_2 by no more than the precision.

    Args:
      laplacians: [matchings, workers, workers].
      budget: in (0, 1].
    """
    count, most = len(laplacians), budget * len(laplacians)
    if budget == 1:
        return np.ones(count)
    optimize = _scipy_optimize()
    precision = _PRECISION * _lambda_2(laplacians.sum(axis=0))[0][0]
    bounds = [*[(0, 1)] * count, (0, None)]
    spent = np.append(np.ones(count), 0)
    cuts: list[Floats] = []
    best, best_value = np.full(count, budget), -1.0
    trial = best
    for _ in range(_ROUNDS):
        values, vectors = _lambda_2(np.tensordot(trial, laplacians, 1))
        if values[0] > best_value:
            best, best_value = trial, values[0]
        # The bounds of the eigenvectors above help where lambda_2 is a double one.
        gains = np.einsum("iv,jik,kv->vj", vectors, laplacians, vectors)
        cuts += [np.append(-gain, 1) for gain in gains]
        solved = optimize.linprog(
            np.append(np.zeros(count), -1),
            A_ub=np.stack([*cuts, spent]),
            b_ub=np.append(np.zeros(len(cuts)), most),
            bounds=bounds,
        )
        trial, bound = np.clip(solved.x[:-1], 0, 1), solved.x[-1]
        if bound - best_value <= precision:
            break
    return best


def best_weight(laplacians: Floats, probabilities: Floats) -> float:
    """The weight alpha that minimises the norm of E[W'W] - J.

    With W = I - alpha sum_j B_j L_j, A = sum_j p_j L_j and V = sum_j p_j (1 - p_j) L_j
    it is I - 2 alpha A + alpha^2 (A^2 + 2 V) - J, whose norm is convex in alpha. The
    paper's semidefinite program has b >= alpha^2 in the place of the square. A^2 + 2 V
    has no negative eigenvalue, so b is the square at its optimum, and one variable is
    left.
    """
    mean = np.tensordot(probabilities, laplacians, 1)
    values = np.linalg.eigvalsh(mean)
    if np.all(probabilities == 1):  # The solution is known: that of a fixed graph.
        return float(2 / (values[1] + values[-1]))
    optimize = _scipy_optimize()
    found = optimize.minimize_scalar(
        lambda weight: second_moment(laplacians, probabilities, weight),
        bounds=(0, 2 / values[1]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x)


def second_moment(laplacians: Floats, probabilities: Floats, weight: float) -> float:
    """The spectral norm of E[W'W] - J."""
    workers = laplacians.shape[-1]
    mean = np.tensordot(probabilities, laplacians, 1)
    spread = np.tensordot(probabilities * (1 - probabilities), laplacians, 1)
    square = np.eye(workers) - 2 * weight * mean
    square += weight**2 * (mean @ mean + 2 * spread)
    return float(np.linalg.eigvalsh(square - 1 / workers)[-1])


def _lambda_2(matrix: Floats) -> tuple[Floats, Floats]:
    """The second smallest eigenvalue of a Laplacian and the next, with eigenvectors."""
    values, vectors = np.linalg.eigh(matrix)
    return values[1:4], vectors[:, 1:4]


def _scipy_optimize() -> ModuleType:
    """SciPy's solvers; ImportError if it is not installed."""
    try:
        import scipy.optimize
    except ImportError:
        raise ImportError(
            "`topologies.matcha` solves for probabilities with SciPy, which is not "
            'installed. Install it with `pip install "gmc_jax[matcha]"`.'
        ) from None
    return scipy.optimize
