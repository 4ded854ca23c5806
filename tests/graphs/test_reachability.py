"""Tests of searches, against powers of matrices and eigenvalues."""

import numpy as np
import pytest

from gmc_jax.graphs._reachability import contracts, not_reaching_all
from gmc_jax.graphs.sparse_matrix import sparse


def rounds_of(seed: int) -> list[np.ndarray]:
    """One to three rounds of few edges, whose columns sum to 1."""
    draw = np.random.default_rng(seed)
    workers, count = draw.integers(1, [7, 4]).tolist()
    edges = draw.random((count, workers, workers)) < draw.choice([0.15, 0.3, 0.5])
    edges |= np.eye(workers, dtype=bool) * (draw.random(workers) < 0.3)
    alone = ~edges.any(axis=1)  # A sender without receivers sends to the next worker.
    edges |= np.roll(np.eye(workers, dtype=bool), 1, axis=0) & alone[:, None]
    return list(edges / edges.sum(axis=1, keepdims=True))


DRAWS = [rounds_of(seed) for seed in range(300)]


def test_who_does_not_reach_all_is_what_powers_of_the_matrix_say():
    found = set()
    for rounds in DRAWS:
        workers = len(rounds[0])
        powers = np.linalg.matrix_power(np.eye(workers) + sum(rounds), workers) > 0
        expected = tuple(np.flatnonzero(~powers.all(axis=0)).tolist())
        assert not_reaching_all(list(map(sparse, rounds))) == expected
        found.add(min(len(expected), 1) + (len(expected) == workers))
    assert found == {0, 1, 2}  # None, some and all of the workers.


def test_what_contracts_has_no_second_eigenvalue_of_modulus_1():
    found: list[bool] = []
    for rounds in DRAWS:
        product = np.linalg.multi_dot([np.eye(len(rounds[0]))] * 2 + rounds[::-1])
        apart = np.abs(np.linalg.eigvals(product - 1 / len(product))).max()
        found.append(contracts(list(map(sparse, rounds))))
        assert found[-1] == (apart < 1 - 1e-9)
    assert 30 < sum(found) < 270


@pytest.mark.parametrize(("workers", "expected"), [(3000, False), (3001, True)])
def test_thousands_of_workers_in_a_circle(workers, expected):
    """They swap with both neighbours; with an even number values go to and fro."""
    everyone = np.eye(workers, dtype=bool)
    both = np.roll(everyone, 1, axis=0) | np.roll(everyone, -1, axis=0)
    one_round = [sparse(both / 2)]
    assert not_reaching_all(one_round) == ()
    assert contracts(one_round) is expected
