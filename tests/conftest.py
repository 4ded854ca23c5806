"""Eight CPU devices for every test: nothing here needs an accelerator.

Most of the time goes into compiling. LLVM optimises little here, gets programs in one
piece, and fusions without a detour through MLIR, unless `XLA_FLAGS` is set to anything
else, an empty string included; what XLA makes of a program (fusions, collectives) is
the same.

Arrays of two ranks are mixed nowhere without a broadcast, but where Flax runs, which
adds biases so: in `MIXES_RANKS`. Dtypes are mixed nowhere without a cast in the rooms
of `STRICT`. In the others optax runs, which mixes them: `apply_updates`, schedules, and
the bias corrections of Adam. There `test_switches` traces our channels and methods
strictly.

A compiled program holds about a hundred memory mappings, and Linux gives a process
65,530. So what was compiled is let go before they run out.
"""

import contextlib
import gc
import itertools
import os
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1 "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters=true",
)

import jax
import pytest

# What is traced stays in caches, so that there is little to collect.
gc.set_threshold(50_000, 20, 20)

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update(
    "jax_num_cpu_devices", int(os.environ.get("JAX_NUM_CPU_DEVICES") or 8)
)

STRICT = {"compressors", "channels"}
MIXES_RANKS = {"experiments", "test_flax.py", "test_sharded.py"}

# Counting them takes a while, and a test adds some hundreds.
MAPPINGS, MOST_MAPPINGS, TESTS_BETWEEN = Path("/proc/self/maps"), 30_000, 10
numbers = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    mixes = MIXES_RANKS.intersection(item.path.parts)
    with jax.numpy_rank_promotion("allow" if mixes else "raise"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    strict = STRICT.intersection(item.path.parts)
    with jax.numpy_dtype_promotion("strict") if strict else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown():
    if next(numbers) % TESTS_BETWEEN or not MAPPINGS.exists():
        return
    if MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture
def float64():
    """Runs the test with 64-bit numbers, as `harness.run` does by itself."""
    with jax.enable_x64(True):
        yield
