"""Gossip methods in NumPy, without any code of the library.

`rounds` are mixing matrices [receiver, sender] that repeat. Functions return weights
[steps + 1, workers, d].
"""

from collections.abc import Callable, Sequence

import numpy as np

from tests.support import references
from tests.support.problems import Problem
from tests.support.references import Rate, Steps, at_start

Compress = Callable[[int, np.ndarray], np.ndarray]
"""What is decoded of a vector at a step."""


def largest(ratio: float) -> Compress:
    """The largest entries."""
    select = references.largest(ratio)
    return lambda step, x: np.where(select(step, x), x, 0)


def signs(step: int, x: np.ndarray) -> np.ndarray:
    """Signs times the mean magnitude."""
    del step
    return np.abs(x).mean() * np.where(np.signbit(x), -1, 1)


def d_psgd(
    problem: Problem,
    eta: Rate,
    rounds: tuple[np.ndarray, ...],
    beta: float = 0.0,
    *,
    nesterov: bool = False,
    adapt_first: bool = False,
) -> np.ndarray:
    """Combine, then adapt; or the other way round."""
    x, steps = at_start(problem), Steps(problem, eta, beta, nesterov)
    trace = [x]
    for t in range(problem.steps):
        w, u = rounds[t % len(rounds)], steps(t, x)
        x = w @ (x + u) if adapt_first else w @ x + u
        trace.append(x)
    return np.stack(trace)


def d2(
    problem: Problem, eta: Rate, w: np.ndarray, beta: float = 0.0, nesterov=False
) -> np.ndarray:
    """As printed, in units of steps: it remembers the last parameters and steps."""
    x, steps = at_start(problem), Steps(problem, eta, beta, nesterov)
    last = u_last = None
    trace = [x]
    for t in range(problem.steps):
        u = steps(t, x)
        if last is None:
            x, last = w @ (x + u), x
        else:
            x, last = w @ (2 * x - last + u - u_last), x
        u_last = u
        trace.append(x)
    return np.stack(trace)


def d2_of_gradients(problem: Problem, eta: Rate, w: np.ndarray) -> np.ndarray:
    """As the paper has it, for a constant rate: in differences of gradients."""
    x, everyone = at_start(problem), range(problem.workers)
    last = g_last = None
    trace = [x]
    for t in range(problem.steps):
        g = np.stack([problem.gradient(k, t, x[k]) for k in everyone])
        if last is None:
            x, last = w @ (x - eta(t) * g), x
        else:
            x, last = w @ (2 * x - last - eta(t) * (g - g_last)), x
        g_last = g
        trace.append(x)
    return np.stack(trace)


def qg_dsgdm(
    problem: Problem,
    eta: Rate,
    rounds: tuple[np.ndarray, ...],
    beta: float = 0.9,
    mu: float = 0.9,
    *,
    nesterov: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Worker by worker. The weights, and the buffers [steps + 1, workers, d]."""
    x, everyone = at_start(problem), range(problem.workers)
    m_hat = np.zeros_like(x)
    trace, buffers = [x], [m_hat]
    for t in range(problem.steps):
        w, half = rounds[t % len(rounds)], np.zeros_like(x)
        for i in everyone:
            g = problem.gradient(i, t, x[i])
            m = beta * m_hat[i] + g
            half[i] = x[i] - eta(t) * (g + beta * m if nesterov else m)
        new = np.stack([sum(w[i, j] * half[j] for j in everyone) for i in everyone])
        moved = (x - new) / eta(t) if eta(t) else np.zeros_like(x)
        m_hat, x = mu * m_hat + (1 - mu) * moved, new
        trace.append(x)
        buffers.append(m_hat)
    return np.stack(trace), np.stack(buffers)


def choco_sgd(
    problem: Problem,
    eta: Rate,
    w: np.ndarray,
    gamma: float,
    compress: Compress,
    beta: float = 0.0,
    *,
    nesterov: bool = False,
    mix_first: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Message by message, with a copy of x_hat_j at every neighbour of j.

    The weights and the x_hat [steps + 1, workers, d]. `mix_first` is the order of the
    authors' code.
    """
    x, steps = at_start(problem), Steps(problem, eta, beta, nesterov)
    everyone = range(problem.workers)
    copies = np.zeros((problem.workers, *x.shape))  # [who knows, of whom, d]
    trace, estimates = [x], [np.zeros_like(x)]

    def mixed(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        for i in everyone:
            for j in everyone:
                x[i] += gamma * w[i, j] * (copies[i, j] - copies[i, i])
        return x

    for t in range(problem.steps):
        x = x + steps(t, x)
        if mix_first:
            x = mixed(x)
        for j in everyone:
            q = compress(t, x[j] - copies[j, j])
            for i in everyone:
                if i == j or w[i, j]:
                    copies[i, j] = copies[i, j] + q
        if not mix_first:
            x = mixed(x)
        trace.append(x)
        estimates.append(copies[everyone, everyone])
    return np.stack(trace), np.stack(estimates)


def dcd_psgd(
    problem: Problem,
    eta: Rate,
    w: np.ndarray,
    compress: Compress,
    beta: float = 0.0,
    *,
    nesterov: bool = False,
) -> np.ndarray:
    """As printed, with a copy of x_j at every neighbour of j."""
    x, steps = at_start(problem), Steps(problem, eta, beta, nesterov)
    everyone = range(problem.workers)
    copies = np.stack([x] * problem.workers)  # [who knows, of whom, d]
    trace = [x]
    for t in range(problem.steps):
        u, new = steps(t, x), x.copy()
        for i in everyone:
            half = sum(w[i, j] * copies[i, j] for j in everyone) + u[i]
            new[i] = x[i] + compress(t, half - x[i])
        for i in everyone:
            for j in everyone:
                if i == j or w[i, j]:
                    copies[i, j] = copies[i, j] + new[j] - x[j]
        x = new
        trace.append(x)
    return np.stack(trace)


def matcha(
    problem: Problem,
    eta: Rate,
    matchings: Sequence[Sequence[tuple[int, int]]],
    active: np.ndarray,
    alpha: float,
    beta: float = 0.0,
) -> np.ndarray:
    """Pair by pair; `active` [steps, matchings] says which matchings are."""
    x, steps = at_start(problem), Steps(problem, eta, beta)
    trace = [x]
    for t in range(problem.steps):
        half = x + steps(t, x)
        x = half.copy()
        for is_active, pairs in zip(active[t], matchings, strict=True):
            for i, j in pairs if is_active else ():
                x[i] += alpha * (half[j] - half[i])
                x[j] += alpha * (half[i] - half[j])
        trace.append(x)
    return np.stack(trace)


def gradient_tracking(
    problem: Problem,
    eta: Rate,
    rounds: tuple[np.ndarray, ...],
    beta: float = 0.0,
    *,
    nesterov: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The weights, and the trackers [steps, workers, d]."""
    x, everyone = at_start(problem), range(problem.workers)
    m, y, g_last = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    trace, trackers = [x], []
    for t in range(problem.steps):
        w = rounds[t % len(rounds)]
        g = np.stack([problem.gradient(k, t, x[k]) for k in everyone])
        y, g_last = (w @ y if t else y) + g - g_last, g
        m = beta * m + y
        x = w @ x - eta(t) * (beta * m + y if nesterov else m)
        trace.append(x)
        trackers.append(y)
    return np.stack(trace), np.stack(trackers)


def sgp(
    problem: Problem,
    eta: Rate,
    rounds: tuple[np.ndarray, ...],
    beta: float = 0.0,
    *,
    nesterov: bool = False,
    delay: int = 0,
    period: int | None = None,
    slow: float = 0.0,
    buffers: str = "maintain",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Message by message. Returns z, the weights w [steps + 1, workers], and the sums.

    The sums, [steps + 1, d + 1], are of all numerators and weights, with those in
    flight. With a period, workers synchronise after so many steps: at the mean of
    their z, weighted by their own weights and those that they have in flight, plus
    the slow momentum. Messages in flight move with their senders. Without any in
    flight, weights are averaged.
    """
    n, d = problem.targets.shape
    steps = Steps(problem, eta, beta, nesterov)
    x, w = at_start(problem), np.ones(n)
    anchor, u = problem.start, np.zeros(d)
    in_flight = []  # (arrival, receiver, numerator, weight, sender)
    zs, ws, sums = [x / w[:, None]], [w], [np.append(x.sum(axis=0), n)]
    for t in range(problem.steps):
        p = rounds[t % len(rounds)]
        x = x + steps(t, x / w[:, None])
        in_flight += [
            (t + delay, i, p[i, j] * x[j], p[i, j] * w[j], j)
            for i, j in np.argwhere(p)
            if i != j
        ]
        x, w = np.diag(p)[:, None] * x, np.diag(p) * w
        for arrival, i, numerator, weight, _ in in_flight:
            if arrival == t:
                x[i] += numerator
                w[i] += weight
        in_flight = [message for message in in_flight if message[0] > t]
        if period and (t + 1) % period == 0:
            mass, z = w.copy(), x / w[:, None]
            for *_, weight, j in in_flight:
                mass[j] += weight
            u = slow * u + anchor - mass @ z / n
            anchor = anchor - u
            in_flight = [
                (arrival, i, numerator + weight * (anchor - z[j]), weight, j)
                for arrival, i, numerator, weight, j in in_flight
            ]
            w = w if in_flight else w.mean() + 0 * w
            x = w[:, None] * anchor
            steps.m = {
                "maintain": steps.m,
                "reset": 0 * steps.m,
                "average": steps.m.mean(axis=0) + 0 * steps.m,
            }[buffers]
        zs.append(x / w[:, None])
        ws.append(w)
        mass = x.sum(axis=0) + sum((m[2] for m in in_flight), np.zeros(d))
        sums.append(np.append(mass, w.sum() + sum(m[3] for m in in_flight)))
    return np.stack(zs), np.stack(ws), np.stack(sums)
