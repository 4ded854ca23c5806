"""Methods with local steps in NumPy, as `references`: nothing of the library.

x_k are the workers' parameters, z is where they last met, `mean_of(round, vectors)`
what a channel makes of one vector of each worker. Weights come back as [steps + 1,
workers, d].
"""

from collections.abc import Callable

import numpy as np

from tests.support.problems import Problem
from tests.support.references import Rate, Select, Trace, no_residuals


def meetings(
    problem: Problem,
    eta: Rate,
    beta: float,
    period: Callable[[int], int],
    outer: Callable,
    *,
    nesterov: bool = False,
    buffers: str = "maintain",
) -> Trace:
    """Local momentum SGD; `outer(round, ways, rate) -> z_old - z_new` at meetings."""
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
    """What a lossy channel makes of the ways, the loss being lost for good."""

    def mean(count, ways):
        return np.mean([np.where(select(count, v), v, 0) for v in ways], axis=0)

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
    """The anchor moves by the mean of the ways."""
    mean = sent_on_average(select)
    return meetings(
        problem,
        eta,
        beta,
        lambda t: period,
        lambda count, ways, rate: mean(count, ways),
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
    return meetings(
        problem,
        eta,
        beta,
        lambda t: 1 if t < start else period,
        lambda count, ways, rate: mean(count, ways),
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
    """Algorithm 1: the way over the rate goes into a momentum, none at a rate of 0."""
    mean, u = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, ways, rate):
        nonlocal u
        way = mean(count, ways)
        if rate == 0:
            u = beta * u
            return alpha * way
        u = beta * u + way / rate
        return alpha * rate * u

    return meetings(problem, eta, inner, lambda t: period, outer, buffers=buffers)


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
    """The way is filtered; Nesterov's block starts further on by beta times v."""
    mean, v = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, ways, rate):
        nonlocal v
        before = v
        v = beta * v + zeta * mean(count, ways)
        if not nesterov:
            return v
        return v + beta * (v - before)  # Both starts lie beta * v ahead of the filter.

    return meetings(problem, eta, inner, lambda t: period, outer)


def lookahead(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    alpha: float,
    period: int,
) -> Trace:
    """The slow weights go part of the way."""
    mean = sent_on_average(select)
    return meetings(
        problem,
        eta,
        beta,
        lambda t: period,
        lambda count, ways, rate: alpha * mean(count, ways),
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
    """A step of Nesterov on the mean of the ways."""
    mean, m = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, ways, rate):
        nonlocal m
        delta = mean(count, ways)
        m = beta * m + delta
        return outer_rate * (delta + beta * m)

    return meetings(problem, eta, inner, lambda t: period, outer)


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
