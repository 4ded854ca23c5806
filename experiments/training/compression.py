"""What a method of a comparison is made of: what it sends, and how it is built."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import optax

import gmc_jax
from gmc_jax.core import Tree

COMPRESSORS: dict[str, Callable[[float], gmc_jax.Compressor]] = {
    "top_k": gmc_jax.top_k,
    "sampled_top_k": gmc_jax.sampled_top_k,
    "random_k": gmc_jax.random_k,
    "random_block": gmc_jax.random_block,
    "scaled_sign": lambda ratio: gmc_jax.scaled_sign(),
    "dense": lambda ratio: gmc_jax.dense(),
}

RESET_RATIO = 1 / 16  # Of CSER; reconstructed for the GMC paper's experiments.


class Messages(NamedTuple):
    """What the methods of a comparison send.

    Attributes:
      compressor: a name in `COMPRESSORS`.
      ratio: the share of the entries that a message holds.
      seed: of the compressor's draws.
      workers: how many send them.
      steps: of the whole training.
      counts: whether channels count the entries that go up and come down.
    """

    compressor: str
    ratio: float
    seed: int = 0
    workers: int = 8
    steps: int = 1
    counts: bool = True

    def channel(self, ratio: float | None = None, seed: int = 0) -> gmc_jax.Channel:
        """How a method averages; one with two channels gives them two seeds."""
        code = COMPRESSORS[self.compressor](self.ratio if ratio is None else ratio)
        over = gmc_jax.all_reduce if code.shared else gmc_jax.all_gather
        return over(code, seed=self.seed + seed)

    def counted(self, channel: gmc_jax.Channel, extra: bool = False) -> gmc_jax.Channel:
        """The channel as methods that are to be counted average through it."""
        return gmc_jax.count_entries(channel, extra=extra) if self.counts else channel

    def step_and_reset(self) -> tuple[gmc_jax.Channel, gmc_jax.Channel, int]:
        """CSER's two channels and its period, which spend as much as one channel.

        One half on steps and one on resets of 1/16 of the entries, as the authors'
        scripts divide it.
        """
        reset = max(RESET_RATIO, self.ratio)
        period = max(1, round(2 * reset / self.ratio))
        return self.channel(self.ratio / 2), self.channel(reset, seed=1), period


Build: TypeAlias = Callable[
    [optax.ScalarOrSchedule, Messages, float], optax.GradientTransformationExtraArgs
]
"""Makes a method from a learning rate, what it sends, and its momentum."""


Count: TypeAlias = Callable[[optax.GradientTransformation, Messages, Tree], float]
"""What one worker sends in a step, on average."""


def _in_the_long_run(tx, messages, params):
    del messages
    return gmc_jax.message_bits(tx, params)


class Method(NamedTuple):
    """What tables call a method, and how it is made.

    Attributes:
      label: its name in tables and figures.
      build: makes it; of what it sends, it counts the entries.
      dense: whether it is there to be compared with, and sends everything.
      sends: what one worker sends in a step, on average.
      counted: whether the paper's count of what a server sends and gets fits it.
      gradient_at: where it takes its gradients.
    """

    label: str
    build: Build
    dense: bool = False
    sends: Count = _in_the_long_run
    counted: bool = True
    gradient_at: str = "w"

    def bits(self, messages: Messages, params: Tree) -> float:
        """What one worker sends in a step, on average."""
        tx = self.build(0.1, messages._replace(counts=False), 0.9)
        return self.sends(tx, messages, params)
