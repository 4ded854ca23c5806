"""PowerSGD in NumPy, without any code of the library."""

import numpy as np

from tests.support.problems import Problem
from tests.support.references import Rate, Select, Trace


def power_sgd(problem: Problem, eta: Rate, select: Select, beta: float = 0.9) -> Trace:
    """Error feedback in units of gradients; d + m is a step, and m holds d."""
    x, m = problem.start, np.zeros_like(problem.start)
    es = [np.zeros_like(x) for _ in range(problem.workers)]
    xs, residuals = [x], [np.stack(es)]
    for t in range(problem.steps):
        d = np.zeros_like(x)
        for k in range(problem.workers):
            p = problem.gradient(k, t, x) + es[k]
            sent = np.where(select(t, p), p, 0)
            es[k] = p - sent
            d += sent / problem.workers
        m = beta * m + d
        x = x - eta(t) * (d + m)
        xs.append(x)
        residuals.append(np.stack(es))
    return np.stack(xs), np.stack(residuals)


def power_sgd_of_a_matrix(
    problem: Problem,
    eta: Rate,
    q: np.ndarray,
    beta: float = 0.9,
    *,
    shape: tuple[int, int],
    alternating: bool = False,
) -> Trace:
    """PowerSGD whose last entries are a matrix, and whose first are sent exactly.

    `q` is the first right factor. The alternating form multiplies the matrix and its
    transpose in turn.
    """
    rows, columns = shape
    x, m = problem.start, np.zeros_like(problem.start)
    es = np.zeros((problem.workers, rows, columns))
    xs, residuals = [x], [np.zeros((problem.workers, x.size))]
    p = np.zeros((rows, q.shape[1]))
    everyone = range(problem.workers)
    for t in range(problem.steps):
        gradients = [problem.gradient(k, t, x) for k in everyone]
        ms = [gradients[k][-rows * columns :].reshape(shape) + es[k] for k in everyone]
        if alternating and t % 2 == 0:
            q = gram_schmidt(q)
            own = [ms[k] @ q for k in everyone]
            p = np.mean(own, axis=0)
            sent = [own[k] @ q.T for k in everyone]
        else:
            if not alternating:
                p = np.mean([ms[k] @ q for k in everyone], axis=0)
            p = gram_schmidt(p)
            own = [ms[k].T @ p for k in everyone]
            q = np.mean(own, axis=0)
            sent = [p @ own[k].T for k in everyone]
        es = np.stack([ms[k] - sent[k] for k in everyone])
        d = np.mean(gradients, axis=0)
        d[-rows * columns :] = np.mean(sent, axis=0).ravel()
        m = beta * m + d
        x = x - eta(t) * (d + m)
        xs.append(x)
        residuals.append(np.zeros((problem.workers, x.size)))
        residuals[-1][:, -rows * columns :] = es.reshape(problem.workers, -1)
    return np.stack(xs), np.stack(residuals)


def gram_schmidt(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal columns, one after another."""
    columns = []
    for column in matrix.T:
        for other in columns:
            column = column - (other @ column) * other
        columns.append(column / np.linalg.norm(column))
    return np.stack(columns, axis=1)
