"""What tests of methods that round gradients at random share.

The methods in NumPy, with the draws handed in; the draws of the library; and the
updates of one step, with many draws.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np
import optax

from gmc_jax.compressors._draws import seeds_of, uniform, words
from tests.support import problems
from tests.support.problems import Problem
from tests.support.references import Rate

Code = Callable[[np.ndarray, np.ndarray], np.ndarray]
LEAVES = (slice(0, 4), slice(4, None))  # Of `problems.tree`.


def draws(problem: Problem, seed: int) -> np.ndarray:
    """What the library draws at each step for each entry, [steps, workers, d].

    Mere data: from the same keys, one for each step, leaf and worker.
    """
    steps, workers, d = problem.noise.shape
    drawn = np.empty((steps, workers, d))
    with jax.enable_x64(True):
        of_steps = jax.vmap(jax.random.fold_in, (None, 0))
        for leaf, part in enumerate(LEAVES):
            size = len(range(d)[part])

            def of_key(key, size=size):
                return uniform(words(seeds_of(key), 0, size), np.dtype(np.float64))

            keys = of_steps(jax.random.key(seed), np.arange(steps))
            keys = jax.vmap(lambda key, leaf=leaf: jax.random.fold_in(key, leaf))(keys)
            keys = jax.vmap(lambda key: of_steps(key, np.arange(workers)))(keys)
            drawn[:, :, part] = jax.jit(jax.vmap(jax.vmap(of_key)))(keys)
    return drawn


def updates(
    tx: optax.GradientTransformation, gradients: np.ndarray, count: int
) -> np.ndarray:
    """What gradients [workers, d] become, with the draws of each step, [count, d]."""

    def at(step):
        params, grads = problems.tree(gradients[0]), jax.vmap(problems.tree)(gradients)
        state = optax.tree.set(tx.init(params), step=step)
        everywhere = jax.vmap(tx.update, (0, None, None), axis_name="workers")
        return everywhere(grads, state, params)[0]

    with jax.enable_x64(True):
        every = jax.jit(jax.vmap(at))(np.arange(count, dtype=np.int32))
    return problems.flat(every, leading=2)[:, 0]


def round_up(f: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Which entries go to the larger of two levels, a fraction f of the way to it.

    Each goes with probability f, for draws u in [0, 1). Which u are up is the rule of
    the library, which takes the floor of entries plus u.
    """
    return np.where(v < 0, u < f, u >= 1 - f)


def buckets(size: int, bucket: int | None) -> Iterator[slice]:
    """The places of each bucket of a leaf."""
    width = bucket or size
    for start in range(0, size, width):
        yield slice(start, min(start + width, size))


def qsgd(levels: int, bucket: int | None) -> Code:
    """Alistarh et al., equations (2) and (3), bucket by bucket."""

    def code(leaf: np.ndarray, u: np.ndarray) -> np.ndarray:
        sent = np.zeros_like(leaf)
        for part in buckets(leaf.size, bucket):
            v = leaf[part]
            norm = np.sqrt(np.sum(v**2))
            length = levels * np.abs(v) / norm
            low = np.floor(length)
            xi = low + round_up(length - low, v, u[part])
            sent[part] = norm * np.sign(v) * xi / levels
        return sent

    return code


def terngrad(bucket: int | None, clip: float | None) -> Code:
    """Wen et al., equations (1) and (7), bucket by bucket."""

    def code(leaf: np.ndarray, u: np.ndarray) -> np.ndarray:
        sent = np.zeros_like(leaf)
        for part in buckets(leaf.size, bucket):
            v = leaf[part]
            if clip is not None:
                limit = clip * np.std(v)
                v = np.clip(v, -limit, limit)
            scale = np.max(np.abs(v))
            sent[part] = scale * np.sign(v) * round_up(np.abs(v) / scale, v, u[part])
        return sent

    return code


def rounded_sgd(problem: Problem, eta: Rate, code: Code, u: np.ndarray) -> np.ndarray:
    """SGD on the mean of rounded gradients: the weights, [steps + 1, d]."""
    w = problem.start
    ws = [w]
    for t in range(problem.steps):
        mean = np.zeros_like(w)
        for k in range(problem.workers):
            g = problem.gradient(k, t, w)
            for part in LEAVES:
                mean[part] += code(g[part], u[t, k, part]) / problem.workers
        w = w - eta(t) * mean
        ws.append(w)
    return np.stack(ws)
