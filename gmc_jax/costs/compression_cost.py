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

from gmc_jax.channels.low_rank import low_rank
from gmc_jax.compressors.centroids import centroids
from gmc_jax.compressors.chunked_top_k import chunked_top_k
from gmc_jax.compressors.integers import integers
from gmc_jax.compressors.powers_of_two import powers_of_two
from gmc_jax.compressors.qsgd import qsgd
from gmc_jax.compressors.quantised import quantised
from gmc_jax.compressors.random_block import random_block
from gmc_jax.compressors.sampled_top_k import sampled_top_k
from gmc_jax.compressors.scaled_sign import scaled_sign
from gmc_jax.compressors.terngrad import terngrad
from gmc_jax.compressors.top_k import top_k
from gmc_jax.core import Channel, Compressor, Tree
from gmc_jax.utils import checks
from gmc_jax.utils.trees import entries_in, size_in_bits

SELECTIONS: dict[str, Callable[[float], Compressor]] = {
    "top_k": top_k,
    "sampled_top_k": sampled_top_k,
    "random_block": random_block,
    "chunked_top_k": chunked_top_k,
    "quantised": lambda ratio: quantised(chunked_top_k(ratio), centroids(2)),
}
"""The compressors of a plan that send some of the entries, from their ratio."""

CODES: dict[str, Callable[[], Compressor]] = {
    "scaled_sign": scaled_sign,
    "integers(8)": lambda: integers(8),
    "powers_of_two": powers_of_two,
    "centroids": centroids,
    "qsgd(7)": lambda: qsgd(7),
    "terngrad": terngrad,
}
"""The compressors of a plan that send a code for every entry."""

RANKS = (2, 4)
"""The ranks of PowerSGD in a plan."""

MATRIX = 1024
"""The sides of the matrices that PowerSGD is measured on."""

_RATIOS = (0.1, 0.01, 0.001)
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
"""Costs by the name of a compressor and by its ratio, 1 for one without a ratio.

Those of the channel `low_rank` are by its rank.
"""

# Measured as by `measure_encodings`, but five times: of each the minimum of a dozen
# rounds or more, of these the second smallest. Vectors of 2^23 entries, two cores of an
# AMD EPYC that were shared with other work, jax 0.10.2.
CPU_2_CORES: CompressionCosts = {
    "top_k": {
        0.1: CompressionCost(1.7e-8, 1.1e-9),
        0.01: CompressionCost(5.8e-9, 1.1e-9),
        0.001: CompressionCost(4.3e-9, 1.2e-9),
    },
    "sampled_top_k": {
        0.1: CompressionCost(1.6e-8, 1.3e-9),
        0.01: CompressionCost(4.7e-9, 1.3e-9),
        0.001: CompressionCost(4.5e-9, 1.0e-9),
    },
    "random_block": {
        0.1: CompressionCost(4.7e-9, 5.1e-9),
        0.01: CompressionCost(2.0e-9, 3.8e-9),
        0.001: CompressionCost(1.9e-9, 1.9e-10),
    },
    "chunked_top_k": {
        0.1: CompressionCost(1.7e-8, 1.7e-9),
        0.01: CompressionCost(5.6e-9, 1.9e-9),
        0.001: CompressionCost(3.9e-9, 2.2e-9),
    },
    "quantised": {
        0.1: CompressionCost(2.4e-8, 5.7e-9),
        0.01: CompressionCost(7.4e-9, 4.8e-9),
        0.001: CompressionCost(5.1e-9, 4.1e-9),
    },
    "scaled_sign": {1.0: CompressionCost(4.7e-9, 2.5e-9)},
    "integers(8)": {1.0: CompressionCost(5.3e-9, 1.8e-9)},
    "powers_of_two": {1.0: CompressionCost(5.7e-9, 1.8e-9)},
    "centroids": {1.0: CompressionCost(1.5e-8, 1.2e-8)},
    "qsgd(7)": {1.0: CompressionCost(5.1e-9, 2.5e-9)},
    "terngrad": {1.0: CompressionCost(8.0e-9, 1.7e-9)},
    "low_rank": {
        2: CompressionCost(1.4e-8, 0.0),
        4: CompressionCost(1.5e-8, 0.0),
    },
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

    others = [
        jax.tree.map(lambda leaf, n=n: jnp.repeat(leaf[None], n, axis=0), message)
        for n in (0, count)
    ]
    lost = [jnp.zeros_like(vector), jnp.zeros_like(vector)]

    def seconds(step: int, which: int) -> float:
        taken, (lost[which], _) = _timed(compiled, lost[which], step, others[which])
        return taken

    taken: list[tuple[float, float]] = []
    for step in range(_WARM_UP + repeats):
        alone, together = seconds(step, 0), seconds(step, 1)
        taken.append((alone, together - alone))
    alone, more = (median(column) for column in zip(*taken[_WARM_UP:], strict=True))
    return CompressionCost(alone / entries, max(0.0, more) / (count * size))


def measure_low_rank(
    rank: int, entries: int = 2**22, repeats: int = 7
) -> CompressionCost:
    """Measures how long `low_rank` takes on this device, on square matrices.

    A round adds matrices of normal draws, of 1024 by 1024 entries, to the residuals of
    the last round, and averages the sums over a single worker.

    Args:
      rank: of the factors, at least 1.
      entries: of all matrices together; fewer than of one matrix are a smaller one.
      repeats: the number of rounds that count, at least 1.

    Returns:
      Seconds for each entry. Sums of factors count as free.
    """
    side = min(MATRIX, math.isqrt(entries))
    shape = (max(1, entries // side**2), side, side)
    drawn = list(jax.random.normal(jax.random.key(0), shape))
    channel = low_rank(rank)

    def one_round(lost: Tree, state: Tree, drawn: Tree) -> Tree:
        total = jax.tree.map(jnp.add, lost, drawn)
        mean, lost, state = _alone(channel, total, state)
        return lost, state, mean

    compiled = jax.jit(one_round, donate_argnums=(0, 1))
    lost, state = jax.tree.map(jnp.zeros_like, drawn), channel.init(drawn)
    taken = []
    for _ in range(_WARM_UP + repeats):
        seconds, (lost, state, _) = _timed(compiled, lost, state, drawn)
        taken.append(seconds)
    return CompressionCost(median(taken[_WARM_UP:]) / entries_in(drawn), 0.0)


def _alone(channel: Channel, tree: Tree, state: Tree) -> Tree:
    """What a channel returns to a single worker."""
    stacked = jax.tree.map(lambda leaf: leaf[None], tree)
    average = jax.vmap(channel.average, (0, None), axis_name=channel.axis_name)
    return jax.tree.map(lambda leaf: leaf[0], average(stacked, state))


def _timed(compiled: Callable[..., Tree], *args: Tree) -> tuple[float, Tree]:
    """The seconds of a call, and what it returns."""
    start = time.perf_counter()
    results = jax.block_until_ready(compiled(*args))
    return time.perf_counter() - start, results


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
    """Measures all compressors of `plan` on this device, in a few minutes.

    Args:
      entries: the size of the vector, as in `measure_encoding`.

    Returns:
      The costs of each, for `plan(..., compression_costs=...)`.

    Raises:
      ValueError: if `entries` is not a whole number of at least 1.
    """
    return {
        **{
            name: {ratio: measure_encoding(make(ratio), entries) for ratio in _RATIOS}
            for name, make in SELECTIONS.items()
        },
        **{
            name: {1.0: measure_encoding(make(), entries)}
            for name, make in CODES.items()
        },
        "low_rank": {rank: measure_low_rank(rank, entries) for rank in RANKS},
    }
