"""What encoding and decoding cost: measured, as nothing on a device is free."""

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
_WARM_UP = 2  # Rounds: compilation, and first touches of memory.


class Encoding(NamedTuple):
    """What a compressor takes of a step, before messages leave and after they arrive.

    Attributes:
      entry: seconds for each entry of the vector: to add it to a residual, to encode
        the sum, and to decode one's own message to as many entries.
      byte: seconds for each byte that arrives from others, to decode and to add it.
    """

    entry: float
    byte: float

    def seconds(self, entries: int, arrived: float) -> float:
        """How long a vector takes of which so many bytes arrive from others."""
        return self.entry * entries + self.byte * arrived


Encodings: TypeAlias = Mapping[str, Mapping[float, Encoding]]
"""By the name of a compressor, and by its ratio; 1 for one that has none."""

# As `measure_encoding` times it, but the least of many rounds: vectors of 2^23 entries,
# two cores of an AMD EPYC that were shared with other work, jax 0.10.2.
CPU_2_CORES: Encodings = {
    "top_k": {
        0.1: Encoding(6.0e-8, 1.5e-9),
        0.01: Encoding(1.3e-8, 1.2e-9),
        0.001: Encoding(5.3e-9, 1.1e-9),
    },
    "sampled_top_k": {
        0.1: Encoding(3.5e-8, 1.0e-9),
        0.01: Encoding(1.3e-8, 1.0e-9),
        0.001: Encoding(8.4e-9, 0.8e-9),
    },
    "random_block": {
        0.1: Encoding(3.4e-9, 2.3e-9),
        0.01: Encoding(2.7e-9, 2.3e-9),
        0.001: Encoding(2.5e-9, 2.3e-9),
    },
    "scaled_sign": {1.0: Encoding(5.7e-9, 2.5e-8)},
}
"""On two CPU cores: dear, so that compression that pays here pays on accelerators."""

FREE = Encoding(0.0, 0.0)
"""What is not encoded. The additions of a dense mean count as nothing, too."""


def measure_encoding(
    compressor: Compressor, entries: int = 2**22, repeats: int = 7
) -> Encoding:
    """Times a compressor on this device: encoding, then decoding what arrived.

    A round is a worker's part of a step: it adds a normal vector to what was lost in
    the last one, encodes the sum, and decodes the message, alone or together with as
    many others as come to the size of the vector, up to 1000. Both are compiled and
    take turns; the first two rounds are left out, and of the others the median counts.

    Args:
      compressor: any compressor. What is measured belongs to its ratio, too.
      entries: of the vector, at least 1. A vector that fits into caches seems cheap.
      repeats: rounds that count, at least 1.

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
    checks.positive_int(entries=entries, repeats=repeats)
    vector = jax.random.normal(jax.random.key(0), (entries,))
    message, _ = jax.jit(compressor.encode)(jax.random.key(0), vector)
    size = size_in_bits(message) / 8
    others = min(1000, math.ceil(vector.nbytes / size))

    def code(lost: jax.Array, step: int, heard: Tree) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(0), step)
        message, lost = compressor.encode(key, lost + vector)
        arrived = jax.tree.map(
            lambda own, rest: jnp.concatenate([own[None], rest]), message, heard
        )
        return lost, compressor.decode(key, arrived, entries)

    compiled = jax.jit(code, donate_argnums=0)

    def seconds(lost: jax.Array, step: int, heard: Tree) -> tuple[float, jax.Array]:
        start = time.perf_counter()
        lost, _ = jax.block_until_ready(compiled(lost, step, heard))
        return time.perf_counter() - start, lost

    heard = [
        jax.tree.map(lambda leaf, n=n: jnp.repeat(leaf[None], n, axis=0), message)
        for n in (0, others)
    ]
    lost = [jnp.zeros_like(vector), jnp.zeros_like(vector)]
    taken: list[tuple[float, float]] = []
    for step in range(_WARM_UP + repeats):
        alone, lost[0] = seconds(lost[0], step, heard[0])
        together, lost[1] = seconds(lost[1], step, heard[1])
        taken.append((alone, together - alone))
    alone, more = (median(column) for column in zip(*taken[_WARM_UP:], strict=True))
    return Encoding(alone / entries, max(0.0, more) / (others * size))


def encoding_at(encodings: Encodings, name: str, ratio: float) -> Encoding:
    """A compressor's cost at a ratio, between those that were measured.

    Entries to look at and entries to send add up, so it goes along a line, and beyond
    the outermost ratios stays as it is at them.

    Raises:
      ValueError: if nothing is known of the compressor.
    """
    measured = encodings.get(name)
    if not measured:
        raise ValueError(
            f"`encodings` must say what `{name}` costs, but knows only of "
            f"{sorted(encodings)}. `gmc_jax.measure_encoding` measures it."
        )
    ratios = sorted(measured)
    columns = zip(*(measured[each] for each in ratios), strict=True)
    return Encoding(*(float(np.interp(ratio, ratios, column)) for column in columns))


def measure_encodings(entries: int = 2**22) -> Encodings:
    """Times all compressors that `plan` knows on this device, in a minute or so.

    Args:
      entries: of the vector, as in `measure_encoding`.

    Returns:
      Their costs, for `plan(..., encodings=...)`.
    """
    return {
        name: {ratio: measure_encoding(compressor(ratio), entries) for ratio in ratios}
        for name, (compressor, ratios) in _MEASURED.items()
    }
