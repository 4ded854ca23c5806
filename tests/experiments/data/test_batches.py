"""The samples that each worker draws."""

import jax
import numpy as np
import pytest

from experiments.data.batches import draws, steps_per_epoch

WORKERS, SIZE = 4, 12


def chosen(batch_size, first, last, seed=0):
    return draws(WORKERS, SIZE, batch_size, seed, first, last).chosen


def test_an_epoch_shows_each_worker_its_share_once():
    seen = np.concatenate(chosen(4, 0, steps_per_epoch(SIZE, 4)), axis=1)

    np.testing.assert_array_equal(np.sort(seen), [np.arange(SIZE)] * WORKERS)
    assert len(np.unique(seen, axis=0)) == WORKERS


def test_draws_depend_on_nothing_but_the_step():
    together = draws(WORKERS, SIZE, 4, 3, 0, 8)
    apart = draws(WORKERS, SIZE, 4, 3, 5, 7)

    for ours, theirs in zip(apart, together, strict=True):
        np.testing.assert_array_equal(ours, theirs[5:7])
    np.testing.assert_array_equal(apart.step, [[5] * WORKERS, [6] * WORKERS])


def test_another_epoch_or_seed_has_another_order():
    first = chosen(12, 0, 1)

    assert (chosen(12, 1, 2) != first).any()
    assert (chosen(12, 0, 1, seed=1) != first).any()


def test_samples_that_do_not_fill_a_batch_are_left_out():
    assert steps_per_epoch(SIZE, 5) == 2
    assert chosen(5, 2, 3).shape == (1, WORKERS, 5)
    assert len(np.unique(chosen(5, 2, 4)[:, 0])) == 10


def test_keys_are_of_the_seed_and_the_step():
    def data(seed, step):
        draw = draws(WORKERS, SIZE, 4, seed, step, step + 1)
        one = jax.tree.map(lambda leaf: leaf[0, 0], draw)
        return jax.random.key_data(one.key()).tolist()

    assert data(0, 1) == data(0, 1)
    assert data(0, 1) != data(0, 2)
    assert data(0, 1) != data(1, 1)


def test_a_batch_larger_than_a_share_is_an_error():
    with pytest.raises(ValueError, match=r"`batch_size` must be at most 12, .* got 13"):
        draws(WORKERS, SIZE, 13, 0, 0, 1)
