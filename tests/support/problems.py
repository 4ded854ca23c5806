"""Quadratic problems with noise in an array, so that all runs use the same numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.core import Tree


class Problem(NamedTuple):
    """A quadratic for each worker, with targets of its own.

    The loss of worker k at step t is r H_k r / 2 + noise_tk w, where r = w - targets_k.
    The parameters are a tree of two leaves. NumPy works on a flat vector in the order
    of the leaves.
    """

    hessians: np.ndarray  # [workers, d, d]
    targets: np.ndarray  # [workers, d]
    noise: np.ndarray  # [steps, workers, d]
    start: np.ndarray  # [d]

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.targets.shape[0]

    @property
    def steps(self) -> int:
        """The number of steps that have noise."""
        return self.noise.shape[0]

    def gradient(self, worker: int, step: int, weights: np.ndarray) -> np.ndarray:
        """One worker's own gradient."""
        residual = weights - self.targets[worker]
        return self.hessians[worker] @ residual + self.noise[step, worker]

    def mean_gradient(self, step: int, weights: np.ndarray) -> np.ndarray:
        """The mean of the workers' gradients at one point."""
        everyone = range(self.workers)
        return np.mean([self.gradient(k, step, weights) for k in everyone], axis=0)

    @property
    def optimum(self) -> np.ndarray:
        """The minimum of the mean loss without noise, [d]."""
        pulls = np.einsum("kij,kj->i", self.hessians, self.targets)
        return np.linalg.solve(self.hessians.sum(axis=0), pulls)


def quadratics(
    workers: int = 4, steps: int = 50, d: int = 20, seed: int = 0
) -> Problem:
    """Returns a problem whose Hessians have eigenvalues from about 0.5 to 2."""
    draw = np.random.default_rng(seed)
    bases = np.linalg.qr(draw.normal(size=(workers, d, d)))[0]
    curvatures = draw.uniform(0.5, 2.0, size=(workers, d))
    return Problem(
        hessians=np.einsum("kij,kj,klj->kil", bases, curvatures, bases),
        targets=draw.normal(size=(workers, d)),
        noise=0.3 * draw.normal(size=(steps, workers, d)),
        start=3 * draw.normal(size=d),
    )


def tree(vector: jax.typing.ArrayLike) -> dict[str, jax.Array]:
    """A vector of at least five entries as parameters, leaves in its order."""
    vector = jnp.asarray(vector)
    return {"bias": vector[:4], "kernel": vector[4:].reshape(2, -1)}


def flat(params: Tree, leading: int = 0) -> np.ndarray:
    """The parameters as vectors again, after `leading` axes of steps or workers."""
    leaves = [x.reshape(*x.shape[:leading], -1) for x in jax.tree.leaves(params)]
    return np.concatenate(leaves, axis=-1)
