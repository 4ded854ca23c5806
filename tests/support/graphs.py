"""Undirected graphs, as matrices of neighbours."""

import numpy as np

from gmc_jax import topologies


def ring(workers: int) -> np.ndarray:
    return topologies.ring(workers).edges


def some_graph(workers: int, seed: int) -> np.ndarray:
    """A ring with further edges."""
    drawn = np.random.default_rng(seed).random((workers, workers)) < 0.3
    edges = np.triu(drawn, 1)
    return edges | edges.T | ring(workers)


GRAPHS = {
    "ring": ring(6),
    "odd ring": ring(7),
    "star": np.eye(5, k=0)[[0]].T.astype(bool) ^ np.eye(5)[[0]].astype(bool),
    "some": some_graph(8, seed=1),
    "complete": ~np.eye(6, dtype=bool),
}
