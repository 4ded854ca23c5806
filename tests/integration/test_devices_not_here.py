"""What steps are once they are compiled for GPUs and TPUs, none of which is here.

They are skipped where the compilers are not installed: the extras `aot-gpu`, `aot-tpu`.
"""

import functools
import json
import math
import pathlib
import subprocess
import sys

import pytest

import gmc_jax
from experiments.bench import programs, steps
from experiments.bench.compilers import check_installed
from tests.programs.compile_only import (
    LEAVES,
    RATIO,
    ROUNDS,
    channels,
    methods,
    shapes,
)

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
D = sum(math.prod(shape) for shape in LEAVES.values())
TREE = 4 * D
CHANNELS = channels()
METHODS = methods()
# What sends or receives whole trees.
DENSE = {"exact", "dense", "gossip, ring"}
EIGHT_BITS = {"integers(8)", "float8", "powers_of_two", "two_phase, integers(8)"}
targets = pytest.mark.parametrize("target", ["gpu", "tpu"])
every_channel = pytest.mark.parametrize("name", CHANNELS)


@functools.cache
def compiled(target):
    """The rows of all programs for a target, by their names."""
    try:
        check_installed(target)
    except ValueError as error:
        pytest.skip(str(error))
    with programs.environment(target) as (variables, dump):
        done = subprocess.run(
            [sys.executable, "-m", "tests.programs.compile_only", target, dump],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = map(json.loads, done.stdout.splitlines())
    return {row["name"]: row for row in rows}


def message(name):
    """The bytes that a worker sends through a channel.

    Of votes and of two phases, those of all slices, and of the mean of its own slice.
    """
    if name == "majority_vote":
        words = math.ceil(math.ceil(D / steps.WORKERS) / 32)
        return 4 * (steps.WORKERS + 1) * words
    if name == "simulated_server":
        return 0  # Its bits are those of an answer that no worker sends.
    size = gmc_jax.message_bits(CHANNELS[name], shapes()) / 8
    if name.startswith("two_phase"):
        size += size / steps.WORKERS
    return size


@every_channel
def test_a_gpu_sends_the_message_and_nothing_else(name):
    """Two phases pad each slice, and the mean, by less than two words."""
    padding = compiled("gpu")[name]["wire"] - message(name)
    slices = steps.WORKERS + 1 if name.startswith("two_phase") else 0
    assert 0 <= padding < 8 * slices or padding == 0


@every_channel
def test_a_tpu_sends_the_message_and_its_padding(name):
    row = compiled("tpu")[name]
    gathers = [one for one in row["collectives"] if one[0] == "all-gather"]
    padding = row["wire"] - message(name)
    assert 0 <= padding < 512 * len(gathers) or padding == 0


@targets
@every_channel
def test_no_collective_is_dense(target, name):
    """Codes of eight bits take a quarter of a tree, and more with their scales."""
    part = 3 if name in EIGHT_BITS else 4
    if name not in DENSE:
        sizes = [size for _, size, *_ in compiled(target)[name]["collectives"]]
        assert all(size < TREE / part for size in sizes)


@targets
@every_channel
def test_nothing_sorts_all_entries(target, name):
    """Not a quarter of them, so that no leaf but the tiny one is sorted."""
    sorted_entries = [entries for entries, *_ in compiled(target)[name]["sorts"]]
    assert all(entries < D / 4 for entries in sorted_entries)


@targets
@every_channel
def test_temporary_memory_is_two_trees_and_the_messages_at_most(target, name):
    """Another one where a conditional selects the channel: it returns two.

    And where senders are counted, or bins fitted to all entries. TPUs pad arrays to
    whole tiles, which takes another one at this size.
    """
    three = ("join_channels", "mean_of_senders", "centroids")
    trees = 2 + (name in three) + (target == "tpu")
    messages = steps.WORKERS * message(name)
    assert compiled(target)[name]["temporary"] <= trees * TREE + messages + 2**17


@pytest.mark.parametrize("name", ["top_k", "random_block"])
def test_a_gpu_reads_and_writes_few_trees_in_a_step(name):
    """At least 7: of the gradient, and of momenta, residuals and parameters twice."""
    assert compiled("gpu")[name]["moved"] <= 14 * TREE


@targets
@every_channel
def test_the_whole_state_is_donated(target, name):
    row = compiled(target)[name]
    assert row["aliased"] == row["state_leaves"]
    assert row["donated"] >= row["state"]


@pytest.mark.parametrize("name", METHODS)
def test_methods_donate_their_state(name):
    """But for the scalars of SGP: its weights are equal, and computed once."""
    row = compiled("gpu")[name]
    scalars = 4 * len(LEAVES) if name == "SGP" else 0
    assert row["state"] - scalars <= row["donated"] <= row["state"]


@pytest.mark.parametrize("name", [*CHANNELS, *METHODS])
def test_no_kernel_of_a_gpu_holds_an_atomic(name):
    row = compiled("gpu")[name]
    assert row["kernels"] > 0
    assert row["atomics"] == 0


@targets
@every_channel
def test_no_two_updates_of_a_scatter_meet(target, name):
    """But beyond the end, when places are decoded: there they are dropped."""
    if name != "quantised":
        assert all(unique for *_, unique in compiled(target)[name]["scatters"])


@targets
def test_a_loop_counts_all_its_rounds(target):
    row = compiled(target)["loop"]
    assert row["wire"] == ROUNDS * 4000
    assert row["collectives"] == [["all-reduce", 4000, False, ROUNDS]]


@targets
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_split_worker_sends_one_message(target, dtype):
    row = compiled(target)[f"split {dtype}"]
    # Of parameters, momenta and residuals.
    assert sum("'model'" in spec for spec in row["specs"]) == 3 * 2
    sent = math.ceil(RATIO * 2 * 64 * 100)
    width = 4 if dtype == "float32" else 2
    # Each of four devices sends a slice of the values and one of the indices.
    slices = 4 * math.ceil(sent / 4)
    padding = 4 * 128 * (width + 4) if target == "tpu" else 0
    assert 0 <= row["wire"] - slices * (width + 4) <= padding
    assert all(operation == "all-gather" for operation, *_ in row["collectives"])


@targets
def test_arrays_become_shapes_and_running_says_why_not(target):
    row = compiled(target)["refusal"]
    assert row["shapes"]
    assert "compile" in row["message"]
