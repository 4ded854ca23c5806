"""Tests of colours: each end has a colour once, whatever the graph."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gmc_jax.graphs import _colouring
from gmc_jax.graphs._colouring import alternating_colours, near_colours
from gmc_jax.graphs.matchings import busiest
from gmc_jax.graphs.sparse_matrix import sparse


@given(st.integers(2, 9), st.floats(0.1, 1), st.integers(0, 10**6))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_alternating_paths_need_no_more_colours_than_messages(workers, share, seed):
    edges = np.random.default_rng(seed).random((workers, workers)) < share
    messages = sparse((edges & ~np.eye(workers, dtype=bool)).astype(float))
    colours = alternating_colours(messages, busiest(messages))
    for ends in (messages.senders, messages.receivers):
        assert len({*zip(ends, colours, strict=True)}) == len(colours)
    assert ((colours >= 0) & (colours < busiest(messages))).all()


def test_a_search_ends_where_it_takes_long(monkeypatch):
    """Four colours of five senders are 20 trials, and some receivers are taken."""
    messages = sparse(1 - np.eye(5)[[1, 0, 2, 4, 3]])
    assert near_colours(messages, 4) is not None
    monkeypatch.setattr(_colouring, "MOST_TRIED", 21)
    assert near_colours(messages, 4) is None
