"""Tests of the selection that each platform compiles."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax import random_block, sampled_top_k, threshold, top_k
from gmc_jax.compressors import _selection
from tests.support.compressors import round_trip

COMPRESSORS = {
    "top_k": top_k(0.01),
    "sampled_top_k": sampled_top_k(0.01),
    "sampled_top_k of all": sampled_top_k(0.01, sample=1),
    "threshold": threshold(2.0, 0.01),
}


def vector(kind: str, d: int) -> np.ndarray:
    draw = np.random.default_rng(d)
    x = draw.normal(size=d).astype(np.float32)
    if kind == "ties":
        x = np.round(x)
    if kind == "clustered":  # All large entries are in a few blocks, one the last.
        x[-max(1, d // 9) :] *= 100
    if kind == "not finite":
        x[draw.random(d) < 0.1] = math.nan
        x[draw.random(d) < 0.1] = -math.inf
    return x * (kind != "zeros")


@functools.cache
def selection(s: int, pyramid: _selection.Pyramid | None):
    """The indices that reach a threshold: this platform's, or an accelerator's."""

    def select(x, least):
        if pyramid is None:
            return _selection.at_least(x, least, s)
        return _selection.by_sorting(x, least, s, pyramid)

    return jax.jit(select)


@pytest.mark.parametrize(
    "pyramid", [None, _selection.GPU, _selection.TPU], ids=["here", "GPU", "TPU"]
)
@pytest.mark.parametrize("kind", ["normal", "ties", "clustered", "not finite", "zeros"])
@pytest.mark.parametrize(
    ("d", "s"), [(1, 1), (50, 50), (5000, 3), (5001, 2000), (40_001, 60)]
)
def test_every_platform_selects_the_largest_that_reach_a_threshold(kind, pyramid, d, s):
    """Ties go to the lowest index, and unused slots come last."""
    x = vector(kind, d)
    bits = np.abs(x).view(np.int32)
    order = np.argsort(-bits, kind="stable")[:s]
    for least in (0, int(np.float32(1).view(np.int32)), int(bits[order[-1]])):
        expected = np.full(s, d)
        kept = np.sort(order[bits[order] >= least])
        expected[: kept.size] = kept
        np.testing.assert_array_equal(selection(s, pyramid)(x, least), expected)


def test_a_sample_that_misleads_changes_no_selection(monkeypatch):
    """It tells a search of long vectors where to look, and no more."""
    monkeypatch.setattr(_selection, "SAMPLED", 1024)
    d, s = 40_001, 300
    select = jax.jit(lambda x: _selection.largest(x, s))
    for kind in ("normal", "ties", "clustered", "not finite", "zeros"):
        x = vector(kind, d)
        # The sample is one of 16 rows of 32 maxima, of blocks of 16 entries.
        x[np.arange(d) // 16 % 512 < 32] *= 100
        order = np.argsort(-np.abs(x).view(np.int32), kind="stable")
        np.testing.assert_array_equal(select(x), np.sort(order[:s]))


@functools.cache
def program(name: str, platform: str) -> str:
    """An encoding and decoding of 100,000 entries, as another platform gets it."""
    x = jax.ShapeDtypeStruct((100_000,), jnp.float32)
    traced = round_trip(COMPRESSORS[name]).trace(jax.eval_shape(jax.random.key, 0), x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_accelerators_sort_integers_and_never_all_entries(name, platform):
    """Not even in a branch that may not run: its memory would be reserved."""
    sorts = re.findall(
        r"(?:top_k|sort)\(.*: \(?tensor<(\d+)x(\w+)>", program(name, platform)
    )
    assert len(sorts) >= 4
    assert max(int(size) for size, _ in sorts) < 50_000
    assert {dtype for _, dtype in sorts} == {"i32"}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_indices_are_said_to_ascend_and_do(name):
    """A TPU sorts them otherwise, and a wrong word would be a wrong result."""
    said = re.findall(r"scatter.*?indices_are_sorted = (\w+)", program(name, "tpu"))
    assert said == ["true"] * 2
    x = jnp.asarray(vector("ties", 100_000))
    message, _ = jax.jit(COMPRESSORS[name].encode)(jax.random.key(0), x)
    assert np.all(np.diff(message.indices) >= 0)


def test_a_block_that_wraps_is_not_said_to_ascend():
    x = jnp.zeros(10)
    text = str(jax.make_jaxpr(random_block(0.5).encode)(jax.random.key(0), x))
    assert set(re.findall(r"indices_are_sorted=(\w+)", text)) == {"False"}
