"""Methods with local steps in NumPy, without any code of the library.

x_k are the workers' parameters, and z is the anchor. A pseudo-gradient is z - x_k.
`mean(round, pseudo_gradients)` is the mean that a channel gives. Functions return
weights [steps + 1, workers, d].
"""

from collections.abc import Callable

import numpy as np

from tests.support.problems import Problem
from tests.support.references import (
    Rate,
    Select,
    Steps,
    Trace,
    at_start,
    no_residuals,
)


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
    xs, steps = at_start(problem), Steps(problem, eta, beta, nesterov)
    z, trace, since, count = problem.start, [xs], 0, 0
    for t in range(problem.steps):
        xs = xs + steps(t, xs)
        since += 1
        if since >= period(t):
            z = z - outer(count, z - xs, eta(t))
            xs = z + 0 * xs
            if buffers == "reset":
                steps.m = 0 * steps.m
            if buffers == "average":
                steps.m = steps.m.mean(axis=0) + 0 * steps.m
            since, count = 0, count + 1
        trace.append(xs)
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


def qsparse_local_sgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    period: int,
    nesterov: bool = False,
) -> Trace:
    """Each worker sends its difference to the anchor and its memory, compressed."""
    xs, steps = at_start(problem), Steps(problem, eta, beta, nesterov)
    z, count, memories = problem.start, 0, np.zeros_like(xs)
    weights, residuals = [xs], [memories.copy()]
    for t in range(problem.steps):
        xs = xs + steps(t, xs)
        if (t + 1) % period == 0:
            arrived = np.zeros_like(z)
            for k in range(problem.workers):
                p = memories[k] + z - xs[k]
                c = np.where(select(count, p), p, 0)
                memories[k] = p - c
                arrived = arrived + c / problem.workers
            z, count = z - arrived, count + 1
            xs = z + 0 * xs
        weights.append(xs)
        residuals.append(memories.copy())
    return np.stack(weights), np.stack(residuals)


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


def muloco(
    problem: Problem,
    eta: Rate,
    select: Select,
    mu: float = 0.6,
    *,
    inner: float,
    outer_rate: Rate,
    period: int,
) -> Trace:
    """The outer rate stands inside the outer momentum."""
    mean, u = sent_on_average(select), np.zeros_like(problem.start)

    def outer(count, pseudo_gradients, rate):
        nonlocal u
        step = outer_rate(count) * mean(count, pseudo_gradients)
        u = mu * u + step
        return mu * u + step

    return synchronised(problem, eta, inner, lambda t: period, outer)


def easgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    centre_rate: float,
    period: int,
) -> Trace:
    """Springs between the workers and the centre; both ends feel what is sent."""
    xs, steps = at_start(problem), Steps(problem, eta, beta)
    c, count, alpha = problem.start, 0, centre_rate / problem.workers
    trace = [xs]
    for t in range(problem.steps):
        xs = xs + steps(t, xs)
        if (t + 1) % period == 0:
            apart = [x - c for x in xs]
            ds = [alpha * np.where(select(count, d), d, 0) for d in apart]
            xs, c, count = xs - ds, c + np.sum(ds, axis=0), count + 1
        trace.append(xs)
    return np.stack(trace), no_residuals(problem)


def cocod_sgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    period: int,
) -> Trace:
    """The mean of what was sent arrives late; own steps since then are added to it.

    Of the differences to the mean that arrived last, only selected entries are sent.
    The others stay where they are.
    """
    xs, steps = at_start(problem), Steps(problem, eta, beta)
    mean, sent, count, trace = problem.start, xs, 0, [xs]
    for t in range(problem.steps):
        xs = xs + steps(t, xs)
        if (t + 1) % period == 0:
            known = [np.where(select(count, s - mean), s, mean) for s in sent]
            mean = np.mean(known, axis=0)
            xs = mean + xs - known
            sent, count = xs, count + 1
        trace.append(xs)
    return np.stack(trace), no_residuals(problem)


def overlap_local_sgd(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.7,
    *,
    inner: float,
    alpha: float,
    period: int,
) -> Trace:
    """The anchor follows what was sent a period before, and pulls the workers."""
    xs, steps = at_start(problem), Steps(problem, eta, inner)
    z, v = problem.start, np.zeros_like(problem.start)
    sent, count, trace = xs, 0, [xs]
    for t in range(problem.steps):
        xs = xs + steps(t, xs)
        if (t + 1) % period == 0:
            known = [np.where(select(count, s - z), s, z) for s in sent]
            v = beta * v + np.mean(known, axis=0) - z
            z = z + v
            xs = (1 - alpha) * xs + alpha * z
            sent, count = xs, count + 1
        trace.append(xs)
    return np.stack(trace), no_residuals(problem)


def streaming_diloco(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    inner: float,
    outer_rate: float,
    period: int,
    delay: int,
    alpha: float | None,
    fragments: list[range] | None = None,
) -> Trace:
    """A step of Nesterov on the mean pseudo-gradient of one fragment at a time.

    `alpha` is the weight of a worker's own parameters. With None a worker keeps what it
    did since it sent.
    """
    mean, everyone = sent_on_average(select), range(problem.workers)
    owns = [range(problem.start.size)] if fragments is None else fragments
    z, m = problem.start.copy(), np.zeros_like(problem.start)
    xs, steps = at_start(problem), Steps(problem, eta, inner)
    sent, sent_at, counts = xs.copy(), {}, [0] * len(owns)
    trace = [xs.copy()]
    for t in range(1, problem.steps + 1):
        xs[:] = xs + steps(t - 1, xs)

        def take_in(p: int, own: range) -> None:
            delta = mean(counts[p], [z[own] - sent[k][own] for k in everyone])
            m[own] = beta * m[own] + delta
            z[own] -= outer_rate * (delta + beta * m[own])
            for k in everyone:
                if alpha is None:
                    xs[k][own] += z[own] - sent[k][own]
                else:
                    xs[k][own] = alpha * xs[k][own] + (1 - alpha) * z[own]
            counts[p] += 1

        for p, own in enumerate(owns):
            if p in sent_at and t == sent_at[p] + delay:
                take_in(p, own)
            lag = -(-(p + 1) * period // len(owns))
            if t >= lag and (t - lag) % period == 0:
                sent[:, own], sent_at[p] = xs[:, own], t
                if not delay:
                    take_in(p, own)
        trace.append(xs.copy())
    return np.stack(trace), no_residuals(problem)


def eager_diloco(
    problem: Problem,
    eta: Rate,
    select: Select,
    beta: float = 0.9,
    *,
    inner: float,
    outer_rate: float,
    period: int,
) -> Trace:
    """Each worker has an anchor, and hears of the others one period late."""
    mean, everyone = sent_on_average(select), range(problem.workers)
    xs, steps = at_start(problem), Steps(problem, eta, inner)
    zs, outer_ms, last = xs.copy(), np.zeros_like(xs), np.zeros_like(xs)
    trace, count = [xs], 0
    for t in range(problem.steps):
        xs = xs + steps(t, xs)
        if (t + 1) % period == 0:
            heard, own = mean(count, list(last)), zs - xs
            for k in everyone:
                others = heard - last[k] / problem.workers
                delta = others + own[k] / problem.workers
                outer_ms[k] = beta * outer_ms[k] + delta
                zs[k] -= outer_rate * (delta + beta * outer_ms[k])
            xs, last, count = zs.copy(), own, count + 1
        trace.append(xs)
    return np.stack(trace), no_residuals(problem)


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
