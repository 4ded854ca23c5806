"""The seconds of encoding and decoding, as measured on a device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax.compressors.random_block import random_block
from gmc_jax.compressors.sampled_top_k import sampled_top_k
from gmc_jax.compressors.scaled_sign import scaled_sign
from gmc_jax.compressors.top_k import top_k
from gmc_jax.core import Compressor, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.trees import size_in_bits

_MEASURED: dict[str, tuple[Callable[[float], Compressor], tuple[float, ...]]] = {
    "top_k": (top_k, (0.1, 0.01, 0.001)),
    "sampled_top_k": (sampled_top_k, (0.1, 0.01, 0.001)),
    "random_block": (random_block, (0.1, 0.01, 0.001)),
    "scaled_sign": (lambda ratio: scaled_sign(), (1.0,)),
}
_WARM_UP = 2  # First rounds, which compile and touch memory for the first time.


class CompressionCost(NamedTuple):
    """The seconds that a compressor adds to a step, besides those on the link.

    Attributes:
      entry: seconds for each entry of the vector: to add it to the residual, to encode
        the sum, and to decode the worker's own message.
      byte: seconds for each byte that arrives from other workers: to decode it and to
        add what is decoded.
    """

    entry: float
    byte: float

    def seconds(self, entries: int, arrived: float) -> float:
        """The seconds for a vector of `entries` and `arrived` bytes from others."""
        return self.entry * entries + self.byte * arrived


CompressionCosts: TypeAlias = Mapping[str, Mapping[float, CompressionCost]]
"""Costs by the name of a compressor and by its ratio, 1 for one without a ratio."""

# Measured as by `measure_encoding`, but as the minimum of many rounds: vectors of 2^23
# entries, two cores of an AMD EPYC that were shared with other work, jax 0.10.2.
CPU_2_CORES: CompressionCosts = {
    "top_k": {
        0.1: CompressionCost(6.0e-8, 1.5e-9),
        0.01: CompressionCost(1.3e-8, 1.2e-9),
        0.001: CompressionCost(5.3e-9, 1.1e-9),
    },
    "sampled_top_k": {
        0.1: CompressionCost(3.5e-8, 1.0e-9),
        0.01: CompressionCost(1.3e-8, 1.0e-9),
        0.001: CompressionCost(8.4e-9, 0.8e-9),
    },
    "random_block": {
        0.1: CompressionCost(3.4e-9, 2.3e-9),
        0.01: CompressionCost(2.7e-9, 2.3e-9),
        0.001: CompressionCost(2.5e-9, 2.3e-9),
    },
    "scaled_sign": {1.0: CompressionCost(5.7e-9, 2.5e-8)},
}
"""Measured on two CPU cores. Compression that pays there pays on accelerators, too."""

FREE = CompressionCost(0.0, 0.0)
"""The cost of a message that is not encoded. Adding dense vectors counts as free."""


def measure_encoding(
    compressor: Compressor, entries: int = 2**22, repeats: int = 7
) -> CompressionCost:
    """Measures how long a compressor takes on this device to encode and to decode.

    A round does what a worker does in a step. It adds a vector of normal draws to the
    residual of the last round, encodes the sum, and decodes messages. It does so twice:
    first with its own message alone, then together with at most 1000 further messages,
    as many as it takes for the size of the vector. Both programs are compiled. The
    first two rounds do not count. The result is the median of the others.

    Args:
      compressor: any compressor. The result holds for its ratio only.
      entries: the size of the vector, at least 1. A vector that fits into caches takes
        less time for each entry.
      repeats: the number of rounds that count, at least 1.

    Returns:
      Seconds for each entry, and for each byte that arrives.

    Raises:
      TypeError: if `compressor` is no compressor.
      ValueError: if `entries` or `repeats` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax
      >>> cost = gmc_jax.measure_encoding(gmc_jax.top_k(0.01), entries=10_000)
      >>> cost.entry > 0
      True
    """
    checks.compressor(compressor=compressor)
    checks.positive_int(repeats=repeats)
    entries = checks.whole(entries=entries)
    vector = jax.random.normal(jax.random.key(0), (entries,))
    like = jax.ShapeDtypeStruct(vector.shape, vector.dtype)
    message, _ = jax.jit(compressor.encode)(jax.random.key(0), vector)
    size = size_in_bits(message) / 8
    count = min(1000, math.ceil(vector.nbytes / size))

    def one_round(
        lost: jax.Array, step: int, others: Tree
    ) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(0), step)
        message, lost = compressor.encode(key, lost + vector)
        arrived = jax.tree.map(
            lambda own, rest: jnp.concatenate([own[None], rest]), message, others
        )
        return lost, compressor.decode(key, arrived, like)

    compiled = jax.jit(one_round, donate_argnums=0)

    def seconds(lost: jax.Array, step: int, others: Tree) -> tuple[float, jax.Array]:
        start = time.perf_counter()
        lost, _ = jax.block_until_ready(compiled(lost, step, others))
        return time.perf_counter() - start, lost

    others = [
        jax.tree.map(lambda leaf, n=n: jnp.repeat(leaf[None], n, axis=0), message)
        for n in (0, count)
    ]
    lost = [jnp.zeros_like(vector), jnp.zeros_like(vector)]
    taken: list[tuple[float, float]] = []
    for step in range(_WARM_UP + repeats):
        alone, lost[0] = seconds(lost[0], step, others[0])
        together, lost[1] = seconds(lost[1], step, others[1])
        taken.append((alone, together - alone))
    alone, more = (median(column) for column in zip(*taken[_WARM_UP:], strict=True))
    return CompressionCost(alone / entries, max(0.0, more) / (count * size))


def cost_at(
    compression_costs: CompressionCosts, name: str, ratio: float
) -> CompressionCost:
    """Interpolates a compressor's cost between the ratios that were measured.

    The interpolation is linear, since the time is the sum of a part for all entries and
    a part for those that are sent. Beyond the outermost ratios the cost is that of the
    nearest one.

    Args:
      compression_costs: the costs that were measured.
      name: the name of the compressor.
      ratio: its ratio, in (0, 1].

    Returns:
      The cost at the ratio.

    Raises:
      ValueError: if `compression_costs` lacks the compressor.
    """
    measured = compression_costs.get(name)
    if not measured:
        raise ValueError(
            f"`compression_costs` must have the costs of `{name}`, got those of "
            f"{sorted(compression_costs)}. Measure them with "
            "`gmc_jax.measure_encoding`."
        )
    ratios = sorted(measured)
    columns = zip(*(measured[each] for each in ratios), strict=True)
    return CompressionCost(
        *(float(np.interp(ratio, ratios, column)) for column in columns)
    )


def measure_encodings(entries: int = 2**22) -> CompressionCosts:
    """Measures all compressors of `plan` on this device, in about a minute.

    Args:
      entries: the size of the vector, as in `measure_encoding`.

    Returns:
      The costs of each, for `plan(..., compression_costs=...)`.

    Raises:
      ValueError: if `entries` is not a whole number of at least 1.
    """
    return {
        name: {ratio: measure_encoding(compressor(ratio), entries) for ratio in ratios}
        for name, (compressor, ratios) in _MEASURED.items()
    }
