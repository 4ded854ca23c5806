"""The methods that can be compared, one line each, and the messages they can send."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import optax

import gmc_jax


class Method(NamedTuple):
    """What tables call a method, and how it is made.

    Attributes:
      label: its name in tables and figures.
      factory: makes it from a learning rate and a channel.
      dense: whether it is there to be compared with, and sends everything.
      has_momentum: whether the factory has an argument `momentum`.
    """

    label: str
    factory: Callable[..., optax.GradientTransformationExtraArgs]
    dense: bool = False
    has_momentum: bool = True

    def build(
        self, rate: optax.ScalarOrSchedule, channel: gmc_jax.Channel, momentum: float
    ) -> optax.GradientTransformationExtraArgs:
        """The method's chain; one without momentum has no use for `momentum`."""
        options = {"momentum": momentum} if self.has_momentum else {}
        return self.factory(rate, channel, **options)


METHODS = {
    "dmsgd": Method("DMSGD, dense", gmc_jax.dmsgd, dense=True),
    "ef_sgd": Method("EF-SGD", gmc_jax.ef_sgd, has_momentum=False),
    "ef_momentum": Method("local momentum", gmc_jax.ef_momentum),
    "dgc": Method("DGC, masked", gmc_jax.dgc),
    "dgc_unmasked": Method("DGC", partial(gmc_jax.dgc, factor_masking=False)),
    "gmc_server_momentum": Method("server momentum", gmc_jax.gmc_server_momentum),
    "gmc_rate_inside": Method("rate in residual", gmc_jax.gmc_rate_inside),
    "gmc": Method("GMC", gmc_jax.gmc),
}

COMPRESSORS: dict[str, Callable[[float], gmc_jax.Compressor]] = {
    "top_k": gmc_jax.top_k,
    "sampled_top_k": gmc_jax.sampled_top_k,
    "random_k": gmc_jax.random_k,
    "random_block": gmc_jax.random_block,
    "identity": lambda ratio: gmc_jax.identity(),
}


def channel(method: str, compressor: str, ratio: float, seed: int) -> gmc_jax.Channel:
    """How `method` averages: exactly if it is dense, else through the compressor."""
    if METHODS[method].dense:
        return gmc_jax.counted(gmc_jax.exact())
    code = COMPRESSORS[compressor](ratio)
    over = gmc_jax.all_reduce if code.shared else gmc_jax.all_gather
    return gmc_jax.counted(over(code, seed=seed))
