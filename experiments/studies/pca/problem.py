"""The inner problem of computing a leading eigenvector by shift and invert.

With M = mean of a_i a_i^T and a shift just above its largest eigenvalue, one step of
inverse iteration minimises the mean of

    f_i(x) = x^T (shift I - a_i a_i^T) x / 2 - <b, x>,

which is strongly convex although hardly any f_i is convex. The regime of the paper is a
condition number L / sigma above sqrt(n). Here samples have mean length 1, n = 1,024
and, with the default gap, shift / sigma is about 630. Everything is in double
precision.
"""

from typing import NamedTuple

import jax
import numpy as np

SAMPLES, D = 1024, 16


class Problem(NamedTuple):
    """A mean of quadratics.

    Attributes:
      samples: a_i, [n, d].
      shift: above the largest eigenvalue of the mean of a_i a_i^T.
      b: [d], of length 1.
      sigma: the strong convexity of the mean.
    """

    samples: np.ndarray
    shift: float
    b: np.ndarray
    sigma: float

    def gradient(self, x: jax.Array, samples: jax.Array) -> jax.Array:
        """The gradient at x of the mean over some samples, [m, d]."""
        along = (samples * (samples @ x)[:, None]).mean(axis=0)
        return self.shift * x - along - self.b

    @property
    def hessian(self) -> np.ndarray:
        """The Hessian of the mean over all samples."""
        return self.shift * np.eye(D) - self.samples.T @ self.samples / SAMPLES


def problem(seed: int, gap: float) -> Problem:
    """Draws samples whose covariance has a leading eigenvalue 1.1 times the second.

    Args:
      seed: of the samples.
      gap: the distance of the shift to the largest eigenvalue, relative to the gap
        between the first two eigenvalues.
    """
    draw = np.random.default_rng(seed)
    spread = np.concatenate([[1.0, 0.9], 0.8 * draw.uniform(size=D - 2)])
    basis = np.linalg.qr(draw.normal(size=(D, D)))[0]
    samples = draw.normal(size=(SAMPLES, D)) * np.sqrt(spread) @ basis.T
    samples /= np.linalg.norm(samples, axis=1).mean()
    eigenvalues = np.linalg.eigvalsh(samples.T @ samples / SAMPLES)
    sigma = gap * (eigenvalues[-1] - eigenvalues[-2])
    b = draw.normal(size=D)
    return Problem(
        samples, eigenvalues[-1] + sigma, b / np.linalg.norm(b), float(sigma)
    )
