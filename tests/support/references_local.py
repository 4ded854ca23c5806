"""Methods with local steps in NumPy, without any code of the library.

x_k are the workers' parameters, and z is the anchor. A pseudo-gradient is z - x_k.
`mean(round, pseudo_gradients)` is the mean that a channel gives. Functions return
weights [steps + 1, workers, d].
"""

from collections.abc import Callable

import numpy as np

from tests.support.problems import Problem
from tests.support.references import Rate, Select, Trace, no_residuals


def synchronised(
    problem: Problem,
    eta: Rate,
    beta: float,
    period: Callable[[int], int],
    outer: Callable,
    *,
    nesterov: bool = False,
    buffers: str = "maintain",
) -> Trace:
    """Local momentum SGD, and the outer step at each synchronisation.

    `outer(round, pseudo_gradients, rate)` returns z_old - z_new.
    """
    everyone = range(problem.workers)
    z = problem.start
    xs = [z.copy() for _ in everyone]
    ms = [np.zeros_like(z) for _ in everyone]
    trace, since, count = [np.stack(xs)], 0, 0
    for t in range(problem.steps):
        for k in everyone:
            g = problem.gradient(k, t, xs[k])
            ms[k] = beta * ms[k] + g
            xs[k] = xs[k] - eta(t) * (beta * ms[k] + g if nesterov else ms[k])
        since += 1
        if since >= period(t):
            z = z - outer(count, [z - x for x in xs], eta(t))
            xs = [z.copy() for _ in everyone]
            if buffers == "reset":
                ms = [np.zeros_like(z) for _ in everyone]
            if buffers == "average":
                ms = [np.mean(ms, axis=0) for _ in everyone]
            since, count = 0, count + 1
        trace.append(np.stack(xs))
    return np.stack(trace), no_residuals(problem)


def sent_on_average(select: Select) -> Callable:
    """The mean of a lossy channel. What it loses is never sent."""

    def mean(count, pseudo_gradients):
        return np.mean(
            [np.where(select(count, v), v, 0) for v in pseudo_gradients], axis=0
        )

    return mean


def local_sgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    period: int,
    nesterov: bool = False,
    buffers: str = "maintain",
) -> Trace:
    """The anchor moves by the mean pseudo-gradient."""
    mean = sent_on_average(select)
    return synchronised(
        problem,
        eta,
        beta,
        lambda t: period,
        lambda count, pseudo_gradients, rate: mean(count, pseudo_gradients),
        nesterov=nesterov,
        buffers=buffers,
    )


def post_local_sgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    start: int,
    period: int,
) -> Trace:
    """Every step at first."""
    mean = sent_on_average(select)
    return synchronised(
        problem,
        eta,
        beta,
        lambda t: 1 if t < start else period,
        lambda count, pseudo_gradients, rate: mean(count, pseudo_gradients),
    )


def slowmo(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.5,
    *,
    inner: float,
    alpha: float,
    period: int,
    buffers: str = "maintain",
) -> Trace:
    """Algorithm 1: a momentum of pseudo-gradients over rates, but at a rate of 0."""
    mean, u = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, pseudo_gradients, rate):
        nonlocal u
        pseudo_gradient = mean(count, pseudo_gradients)
        if rate == 0:
            u = beta * u
            return alpha * pseudo_gradient
        u = beta * u + pseudo_gradient / rate
        return alpha * rate * u

    return synchronised(problem, eta, inner, lambda t: period, outer, buffers=buffers)


def bmuf(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.5,
    *,
    inner: float,
    zeta: float,
    period: int,
    nesterov: bool = False,
) -> Trace:
    """Pseudo-gradients are filtered; with Nesterov blocks start at z - beta v."""
    mean, v = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, pseudo_gradients, rate):
        nonlocal v
        before = v
        v = beta * v + zeta * mean(count, pseudo_gradients)
        if not nesterov:
            return v
        return v + beta * (v - before)  # Both starts lie beta * v ahead of the filter.

    return synchronised(problem, eta, inner, lambda t: period, outer)


def lookahead(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    alpha: float,
    period: int,
) -> Trace:
    """The anchor moves by a fraction of the mean pseudo-gradient."""
    mean = sent_on_average(select)
    return synchronised(
        problem,
        eta,
        beta,
        lambda t: period,
        lambda count, pseudo_gradients, rate: alpha * mean(count, pseudo_gradients),
    )


def diloco(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    inner: float,
    outer_rate: float,
    period: int,
) -> Trace:
    """A step of Nesterov on the mean pseudo-gradient."""
    mean, m = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, pseudo_gradients, rate):
        nonlocal m
        delta = mean(count, pseudo_gradients)
        m = beta * m + delta
        return outer_rate * (delta + beta * m)

    return synchronised(problem, eta, inner, lambda t: period, outer)


def sparse_loco(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    fade: float,
    outer_rate: float,
    period: int,
    of_senders: bool = False,
) -> Trace:
    """Pseudo-gradients with residuals that fade, over workers or over senders."""
    es = np.zeros((problem.workers, problem.start.size))
    residuals = [es.copy()]

    def outer(count, pseudo_gradients, rate):
        total, senders = np.zeros_like(problem.start), np.zeros_like(problem.start)
        for k, pseudo_gradient in enumerate(pseudo_gradients):
            es[k] = fade * es[k] + pseudo_gradient
            mask = select(count, es[k])
            total[mask] += es[k][mask]
            senders[mask] += 1
            es[k][mask] = 0
        residuals.append(es.copy())
        divisor = np.maximum(senders, 1) if of_senders else problem.workers
        return outer_rate * total / divisor

    weights, _ = synchronised(problem, eta, beta, lambda t: period, outer)
    at = np.arange(problem.steps + 1) // period
    return weights, np.stack(residuals)[at]


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
