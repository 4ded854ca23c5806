"""The problem of the newer recordings: quadratics of diagonal Hessians.

The scripts beside this file import it; nothing of the project is imported.
"""

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def quadratics(steps: int, workers: int, d: int) -> Arrays:
    """In 16 bits, to be stored exactly."""
    draw = np.random.default_rng(0)
    arrays = {
        "curvatures": draw.uniform(0.5, 2.0, size=(workers, d)),
        "targets": draw.normal(size=(workers, d)),
        "noise": 0.3 * draw.normal(size=(steps, workers, d)),
        "start": 2 * draw.normal(size=d),
    }
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def gradient(problem: Arrays, worker: int, t: int, w: np.ndarray) -> np.ndarray:
    """One worker's own, at w; of problems of more parameters, that of the first."""
    curvature, target, noise = (
        array[..., : w.size].astype(np.float64)
        for array in (
            problem["curvatures"][worker],
            problem["targets"][worker],
            problem["noise"][t, worker],
        )
    )
    return curvature * (w - target) + noise


def split(torch: Any, vector: np.ndarray, shapes: list[tuple[int, ...]]) -> list:
    """The first entries of a vector as tensors of PyTorch, in float64."""
    ends = np.cumsum([np.prod(shape) for shape in shapes])
    parts = zip(np.split(vector.astype(np.float64), ends), shapes, strict=False)
    return [torch.tensor(part).reshape(shape) for part, shape in parts]


def flat(tensors: list) -> np.ndarray:
    return np.concatenate([x.detach().numpy().ravel() for x in tensors])
