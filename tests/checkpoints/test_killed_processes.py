"""Tests of processes that are killed while they save."""

import pathlib
import random
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from gmc_jax import Checkpoints
from gmc_jax.checkpoints import manifest
from tests.programs.checkpoint_writer import layout as killed_layout
from tests.programs.checkpoint_writer import state_at

ROOT = pathlib.Path(__file__).parents[2]


def killed_after(directory: pathlib.Path, seconds: float) -> int:
    """Kills a process that saves, so long after its first; the last it told of."""
    command = [sys.executable, "-m", "tests.programs.checkpoint_writer", str(directory)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as saving:
        assert saving.stdout is not None
        first = saving.stdout.readline()
        time.sleep(seconds)
        saving.kill()
        told = [first, *saving.stdout.read().splitlines(keepends=True)]
    assert first, "it ended by itself"
    return int([line for line in told if line.endswith("\n")][-1])


def survives(directory: pathlib.Path, times: int) -> None:
    draw = random.Random(0)
    for _ in range(times):
        told = killed_after(directory, draw.uniform(0, 0.5))
        with Checkpoints(directory, killed_layout()) as checkpoints:
            step, state, _ = checkpoints.restore(state_at(0))
            checkpoints.save(step + 1, state_at(step + 1))
        assert told <= step <= told + 1
        folders = {path.name for path in directory.glob("*-*") if any(path.iterdir())}
        left = manifest.complete_steps(directory)
        assert folders == {manifest.read(directory, at).folder for at in left}
        chex.assert_trees_all_equal(state, jax.tree.map(np.asarray, state_at(step)))


@pytest.mark.slow
def test_saved_checkpoints_survive_whenever_a_process_is_killed(tmp_path):
    survives(tmp_path, times=3)


@pytest.mark.slow
def test_whenever_a_process_is_killed_ten_times_over(tmp_path):
    survives(tmp_path, times=10)
