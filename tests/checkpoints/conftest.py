"""Checkpoints that several files of tests damage or replace."""

import jax
import pytest

from gmc_jax import Checkpoints
from tests.support.checkpointing import small


@pytest.fixture
def two(tmp_path):
    """Checkpoints of the steps 40 and 60."""
    layout, state = small()
    with Checkpoints(tmp_path, layout) as checkpoints:
        for step in (40, 60):
            checkpoints.save(step, jax.tree.map(lambda leaf, s=step: leaf + s, state))
    return tmp_path, layout, state
