"""Methods that compress a server's answer, too, in NumPy, without the library's code.

`server(step, vector)` selects what the server sends. The residuals that functions
return are the workers'.
"""

import numpy as np

from tests.support.problems import Problem
from tests.support.references import Rate, Select, Trace, everything


def dist_ef_sgdm(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    server: Select,
) -> Trace:
    """Compression both ways, residuals in units of gradients. Where eta is 0: nearly 0.

    The residuals are the workers'.
    """
    w = problem.start
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ms = [np.zeros_like(w) for _ in range(problem.workers)]
    server_residual, last = np.zeros_like(w), 0.0
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        rate = eta(t) or 1e-30
        q = (last / rate) * server_residual
        for k in range(problem.workers):
            g = problem.gradient(k, t, w)
            ms[k] = beta * ms[k] + g
            p = g + beta * ms[k] + (last / rate) * es[k]
            sent = np.where(select(t, p), p, 0)
            es[k] = p - sent
            q = q + sent / problem.workers
        answer = np.where(server(t, q), q, 0)
        server_residual, last = q - answer, rate
        w = w - rate * answer
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def double_squeeze(
    problem: Problem, eta: Rate, select: Select, *, server: Select
) -> Trace:
    """Compression both ways; both residuals are of gradients.

    The residuals are the workers'.
    """
    w = problem.start
    deltas = np.zeros((problem.workers, w.size))
    delta = np.zeros_like(w)
    ws, residuals = [w], [deltas.copy()]
    for t in range(problem.steps):
        v = delta.copy()
        for k in range(problem.workers):
            v_k = problem.gradient(k, t, w) + deltas[k]
            mask = select(t, v_k)
            deltas[k] = np.where(mask, 0, v_k)
            v += np.where(mask, v_k, 0) / problem.workers
        mask = server(t, v)
        delta = np.where(mask, 0, v)
        w = w - eta(t) * np.where(mask, v, 0)
        ws.append(w)
        residuals.append(deltas.copy())
    return np.stack(ws), np.stack(residuals)


def one_bit_adam(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    beta2: float = 0.999,
    decay: float = 0.0,
    *,
    freeze: int,
    epsilon: float = 1e-8,
    server: Select = everything,
) -> Trace:
    """Dense Adam for `freeze` steps, then compressed momenta over a frozen variance."""
    x, m, v = problem.start, *np.zeros((2, problem.start.size))
    es, server_residual = np.zeros((problem.workers, x.size)), np.zeros_like(x)
    xs, residuals = [x], [es.copy()]
    for t in range(problem.steps):
        gradients = [problem.gradient(k, t, x) for k in range(problem.workers)]
        if t < freeze:
            g = np.mean(gradients, axis=0)
            m = beta * m + (1 - beta) * g
            v = beta2 * v + (1 - beta2) * g * g
        else:
            q = server_residual
            for k, g in enumerate(gradients):
                p = beta * m + (1 - beta) * g + es[k]
                sent = np.where(select(t - freeze, p), p, 0)
                es[k] = p - sent
                q = q + sent / problem.workers
            m = np.where(server(t - freeze, q), q, 0)
            server_residual = q - m
        x = x - eta(t) * (m / (np.sqrt(v) + epsilon) + decay * x)
        xs.append(x)
        residuals.append(es.copy())
    return np.stack(xs), np.stack(residuals)
