"""The published methods in NumPy, worker by worker, without any code of the library.

Letters are those of the papers: w weights, g gradient, e residual, m momentum, u and v
DGC's two accumulators, eta the learning rate. `select(step, vector)` says which
coordinates of a vector are sent. Every function returns the weights before the first
step and after each, [steps + 1, d] ([steps + 1, workers, d] where they differ between
workers), and the workers' residuals, [steps + 1, workers, d] (zeros where a method has
none).
"""

import math
from collections.abc import Callable

import numpy as np

from tests.support.problems import Problem

Select = Callable[[int, np.ndarray], np.ndarray]
Rate = Callable[[int], float]
Trace = tuple[np.ndarray, np.ndarray]


def everything(step: int, vector: np.ndarray) -> np.ndarray:
    """All coordinates are sent."""
    del step
    return np.ones(vector.size, bool)


def largest(ratio: float) -> Select:
    """The largest magnitudes are sent; of equal ones those with the lowest index."""

    def select(step, vector):
        del step
        kept = np.argsort(-np.abs(vector), kind="stable")
        mask = np.zeros(vector.size, bool)
        mask[kept[: max(1, math.ceil(ratio * vector.size))]] = True
        return mask

    return select


def drawn(masks: np.ndarray) -> Select:
    """The coordinates drawn for all workers are sent, [steps, d]."""

    def select(step, vector):
        del vector
        return masks[step]

    return select


def dmsgd(problem: Problem, eta: Rate, select: Select, beta: float = 0.9) -> Trace:
    """Momentum SGD, momentum of the averaged messages."""
    w, m = problem.start, np.zeros_like(problem.start)
    ws = [w]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            g = problem.gradient(k, t, w)
            mean += np.where(select(t, g), g, 0) / problem.workers
        m = beta * m + mean
        w = w - eta(t) * m
        ws.append(w)
    return np.stack(ws), no_residuals(problem)


def dmsgd_local(
    problem: Problem, eta: Rate, select: Select, beta: float = 0.9
) -> Trace:
    """Momentum SGD, every worker sending its own momentum."""
    w = problem.start
    ms = [np.zeros_like(w) for _ in range(problem.workers)]
    ws = [w]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            ms[k] = beta * ms[k] + problem.gradient(k, t, w)
            mean += np.where(select(t, ms[k]), ms[k], 0) / problem.workers
        w = w - eta(t) * mean
        ws.append(w)
    return np.stack(ws), no_residuals(problem)


def ef_momentum(
    problem: Problem, eta: Rate, select: Select, beta: float = 0.9
) -> Trace:
    """Error feedback behind local momentum, the learning rate in the residual."""
    w = problem.start
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ms = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            ms[k] = beta * ms[k] + problem.gradient(k, t, w)
            delta = es[k] + eta(t) * ms[k]
            sent = np.where(select(t, delta), delta, 0)
            es[k] = delta - sent
            mean += sent / problem.workers
        w = w - mean
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def ef_sgd(problem: Problem, eta: Rate, select: Select) -> Trace:
    """Error feedback without momentum."""
    w = problem.start
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            delta = es[k] + eta(t) * problem.gradient(k, t, w)
            sent = np.where(select(t, delta), delta, 0)
            es[k] = delta - sent
            mean += sent / problem.workers
        w = w - mean
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def def_sgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    detach: float = 0.3,
    period: int | None = None,
) -> Trace:
    """Detached error feedback, the learning rate in the residual.

    With a period, all residuals become their mean after so many steps.
    """
    x = problem.start
    es = [np.zeros_like(x) for _ in range(problem.workers)]
    ms = [np.zeros_like(x) for _ in range(problem.workers)]
    xs, residuals = [x], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(x)
        for k in range(problem.workers):
            y = x - detach * es[k]
            ms[k] = beta * ms[k] + problem.gradient(k, t, y)
            delta = es[k] + eta(t) * ms[k]
            sent = np.where(select(t, delta), delta, 0)
            es[k] = delta - sent
            mean += sent / problem.workers
        x = x - mean
        if period and (t + 1) % period == 0:
            es = [np.mean(es, axis=0)] * problem.workers
        xs.append(x)
        residuals.append(np.stack(es))
    return np.stack(xs), np.stack(residuals)


def detached_adam(
    problem: Problem,
    eta: Rate,
    select: Select,
    *,
    beta: float,
    beta2: float,
    epsilon: float,
    detach: float,
    fade: float,
) -> Trace:
    """Adam of each worker, and detached error feedback of its steps, which fades."""
    x = problem.start
    es, ms, vs = ([np.zeros_like(x) for _ in range(problem.workers)] for _ in range(3))
    xs, residuals = [x], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(x)
        for k in range(problem.workers):
            g = problem.gradient(k, t, x - detach * es[k])
            ms[k] = beta * ms[k] + (1 - beta) * g
            vs[k] = beta2 * vs[k] + (1 - beta2) * g**2
            m, v = ms[k] / (1 - beta ** (t + 1)), vs[k] / (1 - beta2 ** (t + 1))
            delta = fade * es[k] + eta(t) * m / (np.sqrt(v) + epsilon)
            sent = np.where(select(t, delta), delta, 0)
            es[k] = delta - sent
            mean += sent / problem.workers
        x = x - mean
        xs.append(x)
        residuals.append(np.stack(es))
    return np.stack(xs), np.stack(residuals)


def saef(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    period: int | None = None,
) -> Trace:
    """Step-ahead error feedback: fully detached, residuals averaged at times."""
    return def_sgd(problem, eta, select, beta, detach=1.0, period=period)


def gmc(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    detach: float = 0.0,
) -> Trace:
    """Algorithm 1, as printed: the momentum is the last step of the weights.

    With `detach` it is Algorithm 2 (GMC+): worker k takes its gradient at
    w - detach * eta * e_k. Where eta is 0 the momentum is left out.
    """
    w = last = problem.start
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        momentum = -(beta / eta(t)) * (w - last) if eta(t) else np.zeros_like(w)
        for k in range(problem.workers):
            g = problem.gradient(k, t, w - detach * eta(t) * es[k])
            u = es[k] + g + momentum
            sent = np.where(select(t, u), u, 0)
            es[k] = u - sent
            mean += sent / problem.workers
        w, last = w - eta(t) * mean, w
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def gmc_plus(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    detach: float = 0.5,
) -> Trace:
    """Algorithm 2: Algorithm 1 with detached gradients."""
    return gmc(problem, eta, select, beta, detach)


def gmc_stored(problem: Problem, eta: Rate, select: Select, beta: float = 0.9) -> Trace:
    """Algorithm 1, storing d_t = mean c_t instead of the last weights."""
    w, d = problem.start, np.zeros_like(problem.start)
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        rho = eta(t - 1) / eta(t) if t and eta(t) else 0.0
        for k in range(problem.workers):
            u = es[k] + problem.gradient(k, t, w) + beta * rho * d
            sent = np.where(select(t, u), u, 0)
            es[k] = u - sent
            mean += sent / problem.workers
        w, d = w - eta(t) * mean, mean
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def gmc_server_momentum(
    problem: Problem, eta: Rate, select: Select, beta: float = 0.9
) -> Trace:
    """Algorithm 3: momentum on the server."""
    w = last = problem.start
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            p = es[k] + problem.gradient(k, t, w)
            sent = np.where(select(t, p), p, 0)
            es[k] = p - sent
            mean += sent / problem.workers
        w, last = w - eta(t) * mean + beta * (w - last), w
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def gmc_rate_inside(
    problem: Problem, eta: Rate, select: Select, beta: float = 0.9
) -> Trace:
    """Algorithm 4: the learning rate inside the residual."""
    w = last = problem.start
    es = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(es)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            v = es[k] + eta(t) * problem.gradient(k, t, w) - beta * (w - last)
            sent = np.where(select(t, v), v, 0)
            es[k] = v - sent
            mean += sent / problem.workers
        w, last = w - mean, w
        ws.append(w)
        residuals.append(np.stack(es))
    return np.stack(ws), np.stack(residuals)


def dgc(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    factor_masking: bool = True,
    nesterov: bool = False,
) -> Trace:
    """Deep gradient compression, with or without momentum factor masking."""
    w = problem.start
    us = [np.zeros_like(w) for _ in range(problem.workers)]
    vs = [np.zeros_like(w) for _ in range(problem.workers)]
    ws, residuals = [w], [np.stack(vs)]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            g = problem.gradient(k, t, w)
            us[k] = beta * (us[k] + g) if nesterov else beta * us[k] + g
            vs[k] = vs[k] + us[k] + g if nesterov else vs[k] + us[k]
            mask = select(t, vs[k])
            mean += np.where(mask, vs[k], 0) / problem.workers
            vs[k] = np.where(mask, 0, vs[k])
            if factor_masking:
                us[k] = np.where(mask, 0, us[k])
        w = w - eta(t) * mean
        ws.append(w)
        residuals.append(np.stack(vs))
    return np.stack(ws), np.stack(residuals)


def dgc_unmasked(
    problem: Problem, eta: Rate, select: Select, beta: float = 0.9
) -> Trace:
    """Deep gradient compression without momentum factor masking."""
    return dgc(problem, eta, select, beta, factor_masking=False)


def dgc_nesterov(
    problem: Problem, eta: Rate, select: Select, beta: float = 0.9
) -> Trace:
    """Deep gradient compression with the momentum of Nesterov, and masking."""
    return dgc(problem, eta, select, beta, nesterov=True)


def cser(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    reset: Select,
    period: int,
    nesterov: bool = False,
) -> Trace:
    """Error reset. The weights differ between workers: [steps + 1, workers, d].

    `reset(round, vector)` says what is sent of the errors at the end of a period.
    """

    def psync(vectors, chosen, step):
        sent = [np.where(chosen(step, v), v, 0) for v in vectors]
        rests = [v - c for v, c in zip(vectors, sent, strict=True)]
        mean = np.mean(sent, axis=0)
        return [mean + rest for rest in rests], rests

    everyone = range(problem.workers)
    xs = [problem.start for _ in everyone]
    es = [np.zeros_like(x) for x in xs]
    ms = [np.zeros_like(x) for x in xs]
    trace, errors = [np.stack(xs)], [np.stack(es)]
    for t in range(problem.steps):
        ps = []
        for k in everyone:
            g = problem.gradient(k, t, xs[k])
            ms[k] = beta * ms[k] + g
            ps.append(eta(t) * (beta * ms[k] + g if nesterov else ms[k]))
        moves, rests = psync(ps, select, t)
        xs = [xs[k] - moves[k] for k in everyone]
        es = [es[k] - rests[k] for k in everyone]
        if (t + 1) % period == 0:
            shared, rests = psync(es, reset, (t + 1) // period - 1)
            xs = [xs[k] + shared[k] - es[k] for k in everyone]
            es = rests
        trace.append(np.stack(xs))
        errors.append(np.stack(es))
    return np.stack(trace), np.stack(errors)


def ef21(problem: Problem, eta: Rate, select: Select, beta: float = 0.9) -> Trace:
    """EF21-SGDM with a = 1 - beta, from v = g = 0."""
    x, a = problem.start, 1 - beta
    vs, gs = np.zeros((2, problem.workers, x.size))
    xs = [x]
    for t in range(problem.steps):
        for k in range(problem.workers):
            vs[k] = (1 - a) * vs[k] + a * problem.gradient(k, t, x)
            gap = vs[k] - gs[k]
            gs[k] = gs[k] + np.where(select(t, gap), gap, 0)
        x = x - eta(t) * gs.mean(axis=0)  # What a server would hold as its g.
        xs.append(x)
    return np.stack(xs), no_residuals(problem)


def signum(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    weight_decay: float = 0.0,
) -> Trace:
    """signSGD with majority vote. Ties and zeros are plus."""
    del select
    w = problem.start
    ms = [np.zeros_like(w) for _ in range(problem.workers)]
    ws = [w]
    for t in range(problem.steps):
        plus = np.zeros(w.size, int)
        for k in range(problem.workers):
            ms[k] = beta * ms[k] + (1 - beta) * problem.gradient(k, t, w)
            plus += ms[k] >= 0
        vote = np.where(plus * 2 >= problem.workers, 1.0, -1.0)
        w = w - eta(t) * (vote + weight_decay * w)
        ws.append(w)
    return np.stack(ws), no_residuals(problem)


def distributed_lion(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    beta2: float = 0.99,
    decay: float = 0.0,
    *,
    votes: bool = False,
) -> Trace:
    """The mean of the workers' signs, or the sign of their sum: plus in a tie."""
    x = problem.start
    ms = np.zeros((problem.workers, x.size))
    xs = [x]
    for t in range(problem.steps):
        total = np.zeros_like(x)
        for k in range(problem.workers):
            g = problem.gradient(k, t, x)
            delta = np.sign(beta * ms[k] + (1 - beta) * g)
            ms[k] = beta2 * ms[k] + (1 - beta2) * g
            total += np.where(select(t, delta), delta, 0)
        d = np.where(total >= 0, 1.0, -1.0) if votes else total / problem.workers
        x = x - eta(t) * (d + decay * x)
        xs.append(x)
    return np.stack(xs), no_residuals(problem)


def heavy_ball(problem: Problem, eta: Rate, beta: float = 0.9) -> np.ndarray:
    """Serial SGD on the mean gradient, momentum beta (w_t - w_{t-1}): the weights."""
    w = last = problem.start
    ws = [w]
    for t in range(problem.steps):
        step = -eta(t) * problem.mean_gradient(t, w) + beta * (w - last)
        w, last = w + step, w
        ws.append(w)
    return np.stack(ws)


def no_residuals(problem: Problem) -> np.ndarray:
    """Zeros in the place of the residuals of a method that has none."""
    return np.zeros((problem.steps + 1, *problem.targets.shape))


# Where the weights differ between workers.


class Steps:
    """Momentum SGD of each worker: steps, signed like updates, [workers, d]."""

    def __init__(
        self, problem: Problem, eta: Rate, beta: float, nesterov: bool = False
    ):
        self.problem, self.eta, self.beta, self.nesterov = problem, eta, beta, nesterov
        self.m = np.zeros_like(problem.targets)

    def __call__(self, t: int, x: np.ndarray) -> np.ndarray:
        """The steps of gradients at x."""
        workers = range(self.problem.workers)
        g = np.stack([self.problem.gradient(k, t, x[k]) for k in workers])
        self.m = self.beta * self.m + g
        return -self.eta(t) * (self.beta * self.m + g if self.nesterov else self.m)


def at_start(problem: Problem) -> np.ndarray:
    """The start of the problem for every worker."""
    return np.stack([problem.start] * problem.workers)
