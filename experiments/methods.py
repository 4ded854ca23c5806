"""The methods that can be compared, one line each, and the messages they can send."""

from collections.abc import Callable
from functools import partial
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
    "identity": lambda ratio: gmc_jax.identity(),
}

RESET_RATIO = 1 / 16  # Of CSER; reconstructed for the GMC paper's experiments.
DETACHMENTS = (0.0, 0.3, 0.5, 0.8, 1.0)  # The lambdas of the GMC paper's Table 3.


class Messages(NamedTuple):
    """What the methods of a comparison send.

    Attributes:
      compressor: a name in `COMPRESSORS`.
      ratio: the share of the entries that a message holds.
      seed: of the compressor's draws.
    """

    compressor: str
    ratio: float
    seed: int = 0

    def channel(self, ratio: float | None = None, seed: int = 0) -> gmc_jax.Channel:
        """How a method averages; one with two channels gives them two seeds."""
        code = COMPRESSORS[self.compressor](self.ratio if ratio is None else ratio)
        over = gmc_jax.all_reduce if code.shared else gmc_jax.all_gather
        return over(code, seed=self.seed + seed)

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


def _bits(messages: Messages, params: Tree) -> float:
    return gmc_jax.message_bits(messages.channel(), params)


class Method(NamedTuple):
    """What tables call a method, and how it is made.

    Attributes:
      label: its name in tables and figures.
      build: makes it; of what it sends, it counts the entries.
      dense: whether it is there to be compared with, and sends everything.
      bits: what one worker sends in a step, on average.
    """

    label: str
    build: Build
    dense: bool = False
    bits: Callable[[Messages, Tree], float] = _bits


def _through(
    factory: Callable[..., optax.GradientTransformationExtraArgs],
) -> Build:
    """A method with one channel and a momentum."""

    def build(rate, messages, momentum):
        channel = gmc_jax.counted(messages.channel())
        return factory(rate, channel, momentum=momentum)

    return build


def _dense(rate, messages, momentum):
    del messages
    return gmc_jax.dmsgd(rate, gmc_jax.counted(gmc_jax.exact()), momentum=momentum)


def _dense_bits(messages, params):
    del messages
    return gmc_jax.message_bits(gmc_jax.exact(), params)


def _ef_sgd(rate, messages, momentum):
    del momentum
    return gmc_jax.ef_sgd(rate, gmc_jax.counted(messages.channel()))


def _cser(rate, messages, momentum):
    channel, reset, period = messages.step_and_reset()
    return gmc_jax.cser(
        rate,
        gmc_jax.counted(channel),
        gmc_jax.counted(reset, extra=True),
        period=period,
        momentum=momentum,
    )


def _cser_bits(messages, params):
    channel, reset, period = messages.step_and_reset()
    return (
        gmc_jax.message_bits(channel, params)
        + gmc_jax.message_bits(reset, params) / period
    )


def _dist_ef_sgdm(rate, messages, momentum):
    code = COMPRESSORS[messages.compressor](messages.ratio)
    return gmc_jax.dist_ef_sgdm(
        rate,
        gmc_jax.counted(messages.channel()),
        gmc_jax.served(code, seed=messages.seed + 1),
        momentum=momentum,
    )


METHODS = {
    "dmsgd": Method("DMSGD, dense", _dense, dense=True, bits=_dense_bits),
    "ef_sgd": Method("EF-SGD", _ef_sgd),
    "ef_momentum": Method("local momentum", _through(gmc_jax.ef_momentum)),
    "dist_ef_sgdm": Method("dist-EF-SGDM", _dist_ef_sgdm),
    "dgc": Method("DGC, masked", _through(gmc_jax.dgc)),
    "dgc_unmasked": Method("DGC", _through(partial(gmc_jax.dgc, factor_masking=False))),
    "cser": Method("CSER", _cser, bits=_cser_bits),
    "def_sgd": Method("DEF", _through(gmc_jax.def_sgd)),
    "def_a": Method("DEF-A", _through(gmc_jax.def_a)),
    "saef": Method("SAEF", _through(gmc_jax.saef)),
    "gmc_server_momentum": Method(
        "server momentum", _through(gmc_jax.gmc_server_momentum)
    ),
    "gmc_rate_inside": Method("rate in residual", _through(gmc_jax.gmc_rate_inside)),
    "gmc": Method("GMC", _through(gmc_jax.gmc)),
    "gmc_plus": Method("GMC+", _through(gmc_jax.gmc_plus)),
}
METHODS |= {
    f"{name}_{detach}": Method(
        f"{METHODS[name].label}, {detach}", _through(partial(factory, detach=detach))
    )
    for name, factory in (
        ("def_sgd", gmc_jax.def_sgd),
        ("def_a", gmc_jax.def_a),
        ("gmc_plus", gmc_jax.gmc_plus),
    )
    for detach in DETACHMENTS
}
