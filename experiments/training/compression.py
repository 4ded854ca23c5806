"""How a comparison compresses, and the type of a method that it compares."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import optax
from numpy.typing import NDArray

import gmc_jax
from gmc_jax.core import Tree
from gmc_jax.costs.sent_per_step import bits_of_steps

COMPRESSORS: dict[str, Callable[[float], gmc_jax.Compressor]] = {
    "top_k": gmc_jax.top_k,
    "sampled_top_k": gmc_jax.sampled_top_k,
    "random_k": gmc_jax.random_k,
    "random_block": gmc_jax.random_block,
    "chunked_top_k": gmc_jax.chunked_top_k,
    "quantised_top_k": lambda ratio: gmc_jax.quantised(
        gmc_jax.top_k(ratio), gmc_jax.centroids(2)
    ),
    "scaled_sign": lambda ratio: gmc_jax.scaled_sign(),
    "integers": lambda ratio: gmc_jax.integers(8),
    "dense": lambda ratio: gmc_jax.dense(),
}

ENTRIES_IN_TWO_BITS = 4
"""Entries in two bits that cost about as much as one with its place in 32 bits."""

RESET_RATIO = 1 / 16  # Of CSER; reconstructed for the GMC paper's experiments.


def two_bits(ratio: float, seed: int = 0) -> gmc_jax.Channel:
    """Makes a channel of the largest entries, with values in two bits.

    It sends four times as many entries as `ratio` says, which cost about as much.
    """
    largest = gmc_jax.top_k(min(1.0, ENTRIES_IN_TWO_BITS * ratio))
    code = gmc_jax.quantised(largest, gmc_jax.centroids(2))
    return gmc_jax.all_gather(code, seed=seed)


class Compression(NamedTuple):
    """How the methods of a comparison compress, and what else their channels need.

    Attributes:
      compressor: a name in `COMPRESSORS`.
      ratio: the share of the entries that a message holds.
      seed: of the compressor's draws.
      workers: the number of workers.
      steps: of the whole training.
      counts: whether channels count the entries that a server receives and sends.
    """

    compressor: str
    ratio: float
    seed: int = 0
    workers: int = 8
    steps: int = 1
    counts: bool = True

    def code(self, ratio: float | None = None) -> gmc_jax.Compressor:
        """Makes the compressor, with another ratio if one is given."""
        return COMPRESSORS[self.compressor](self.ratio if ratio is None else ratio)

    def channel(self, ratio: float | None = None, seed: int = 0) -> gmc_jax.Channel:
        """Makes a channel; a method with two channels gives them different seeds."""
        code = self.code(ratio)
        over = gmc_jax.all_reduce if code.shared else gmc_jax.all_gather
        return over(code, seed=self.seed + seed)

    def counted(self, channel: gmc_jax.Channel, extra: bool = False) -> gmc_jax.Channel:
        """Makes a channel count its entries, if `counts` is set."""
        return gmc_jax.count_entries(channel, extra=extra) if self.counts else channel

    def step_and_reset(self) -> tuple[gmc_jax.Channel, gmc_jax.Channel, int]:
        """Makes CSER's two channels and its period, which send as much as one channel.

        One half is sent in steps and the other in resets of 1/16 of the entries, as in
        the authors' scripts.
        """
        reset = max(RESET_RATIO, self.ratio)
        period = max(1, round(2 * reset / self.ratio))
        return self.channel(self.ratio / 2), self.channel(reset, seed=1), period


Build: TypeAlias = Callable[
    [optax.ScalarOrSchedule, Compression, float], optax.GradientTransformationExtraArgs
]
"""Makes a method from a learning rate, a compression and a momentum."""


Count: TypeAlias = Callable[[optax.GradientTransformation, Compression, Tree], float]
"""The bits that one worker sends in a step, on average."""


def _long_run(tx, compression, params):
    del compression
    return gmc_jax.message_bits(tx, params)


def _nothing(compression):
    del compression
    return 0.0


class Method(NamedTuple):
    """A method of a comparison.

    Attributes:
      label: its name in tables and figures.
      build: makes the method.
      dense: whether it sends all entries, as a baseline.
      sends: the bits of the messages that one worker sends in a step, on average.
      besides: what a worker sends besides its messages, relative to them; where workers
        vote, the results that it has counted.
      counted: whether the relative cost of the GMC paper, which counts the entries that
        a server receives and sends, applies to it.
      gradient_at: the point at which it computes gradients.
      beside: whether messages travel beside the computation of the next step.
    """

    label: str
    build: Build
    dense: bool = False
    sends: Count = _long_run
    besides: Callable[[Compression], float] = _nothing
    counted: bool = True
    gradient_at: str = "w"
    beside: bool = False

    def bits(self, compression: Compression, params: Tree) -> float:
        """The bits that one worker sends in a step, on average."""
        tx = self.build(0.1, compression._replace(counts=False), 0.9)
        return self.sends(tx, compression, params) * (1 + self.besides(compression))

    def bits_of_steps(self, compression: Compression, params: Tree) -> NDArray:
        """The bits that one worker sends in each step of the training, [steps]."""
        tx = self.build(0.1, compression._replace(counts=False), 0.9)
        sent = bits_of_steps(tx, params, compression.steps, "workers", {})
        return np.asarray(sent * (1 + self.besides(compression)))
