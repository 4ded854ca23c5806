"""Tests of matrices without their zeros."""

import numpy as np
import pytest

from gmc_jax.graphs.sparse_matrix import SparseMatrix, from_weights, sparse

DENSE = np.random.default_rng(0).random((7, 7)) * np.eye(7)[:, [1, 0, 2, 4, 3, 6, 5]]
DENSE[5] = 0.5, 0, 0.25, 0, 0, 1.0, 0


def test_a_matrix_is_taken_apart_and_put_together_again():
    np.testing.assert_array_equal(sparse(DENSE).dense(), DENSE)
    assert sparse(DENSE).weights.all()


@pytest.mark.parametrize(
    ("of_sparse", "of_dense"),
    [
        (SparseMatrix.diagonal, np.diag),
        (
            lambda matrix: matrix.without_diagonal().dense(),
            lambda x: x - np.diag(x.diagonal()),
        ),
        (SparseMatrix.given_away, lambda x: x.sum(axis=0)),
        (SparseMatrix.received, lambda x: x.sum(axis=1)),
        (lambda matrix: matrix.transposed().dense(), np.transpose),
        (lambda matrix: matrix.transposed().places(), lambda x: np.flatnonzero(x)),
        (SparseMatrix.places, lambda x: np.flatnonzero(x.T)),
    ],
)
def test_properties_are_those_of_the_dense_matrix(of_sparse, of_dense):
    np.testing.assert_array_equal(of_sparse(sparse(DENSE)), of_dense(DENSE))


def test_weights_may_come_in_any_order_and_those_of_zero_are_left_out():
    receivers, senders = np.nonzero(DENSE + np.eye(7))
    order = np.random.default_rng(1).permutation(len(senders))
    senders, receivers = senders[order], receivers[order]
    made = from_weights(7, senders, receivers, DENSE[receivers, senders])
    for ours, expected in zip(made[1:], sparse(DENSE)[1:], strict=True):
        np.testing.assert_array_equal(ours, expected)
