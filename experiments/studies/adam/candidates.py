"""The methods that are compared, and the ratios at which they send."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import optax

import gmc_jax
from experiments.studies.adam import dense_variance
from experiments.training.compression import two_bits
from gmc_jax.core import Channel

RATIOS = (0.1, 0.01, 0.001)
DETACH = 0.3
_ADAPTIVE, _SIGNS, _SGD = 0.003, 0.001, 0.2

Rate: TypeAlias = optax.ScalarOrSchedule
Build: TypeAlias = Callable[[Rate, float, int, int], optax.GradientTransformation]
"""Makes a method from its rate, ratio, period and the steps of the training."""


class Candidate(NamedTuple):
    """A method of the comparison.

    Attributes:
      label: its name in tables.
      build: makes the method.
      ratios: the shares of the entries that a message holds.
      periods: the steps between two messages; 0 for all steps of the training.
      centre: the middle of the grid of learning rates.
      is_main: whether it is trained with every number of workers and every seed;
        otherwise with the first number of workers and the first seed.
    """

    label: str
    build: Build
    ratios: tuple[float, ...] = RATIOS
    periods: tuple[int, ...] = (1,)
    centre: float = _ADAPTIVE
    is_main: bool = True


def top_k(ratio: float) -> Channel:
    """Makes a channel of the largest entries."""
    return gmc_jax.all_gather(gmc_jax.top_k(ratio))


def blocks(ratio: float) -> Channel:
    """Makes a channel of blocks that all workers draw together."""
    return gmc_jax.all_reduce(gmc_jax.random_block(ratio))


def _dense(inner: Callable[[Rate], optax.GradientTransformation], rate, *others):
    return optax.chain(gmc_jax.averaged(gmc_jax.exact()), inner(rate))


def _local_adam(rate, ratio, period, steps):
    mean = optax.chain(gmc_jax.averaged(gmc_jax.exact()), optax.scale(-1.0))
    return gmc_jax.periodic(optax.adam(rate), mean, period or steps)


def _in_front(channel: Callable[[float], Channel], rate, ratio, period, steps):
    return optax.chain(gmc_jax.error_feedback(channel(ratio)), optax.adam(rate))


def _behind(channel: Callable[[float], Channel], rate, ratio, period, steps):
    return optax.chain(optax.adam(rate), gmc_jax.error_feedback(channel(ratio)))


def _detached(
    inner: Callable[[Rate], optax.GradientTransformation],
    channel: Callable[[float], Channel],
    rate,
    ratio,
    period,
    steps,
):
    return gmc_jax.detached_optimizer(inner(rate), channel(ratio), detach=DETACH)


def _through(
    factory: Callable[[Channel, Rate], optax.GradientTransformation],
    rate,
    ratio,
    *others,
):
    return factory(top_k(ratio), rate)


def _one_bit_adam(rate, ratio, period, steps):
    signs = gmc_jax.all_gather(gmc_jax.scaled_sign(), per_leaf=True)
    return gmc_jax.one_bit_adam(rate, signs, freeze_step=max(1, steps // 5))


def _frozen_variance(rate, ratio, period, steps):
    """1-bit Adam of the largest entries; its dense steps cost as much as the others."""
    freeze_step = max(1, round(2 * ratio * steps))
    return gmc_jax.one_bit_adam(rate, top_k(ratio), freeze_step=freeze_step)


def _demo(rate, ratio, period, steps):
    return gmc_jax.demo(rate, kept=max(1, round(ratio * 64**2)))


def _sparse_loco(rate, ratio, period, steps):
    sent = gmc_jax.mean_of_senders(gmc_jax.chunked_top_k(ratio))
    return gmc_jax.sparse_loco(optax.adam(rate), sent, period=period)


def _local_adam_gmc(channel: Callable[[float], Channel], rate, ratio, period, steps):
    outer = gmc_jax.gmc(1.0, channel(ratio), momentum=0.5)
    return gmc_jax.periodic(optax.adam(rate), outer, period)


def _diloco(rate, ratio, period, steps):
    return gmc_jax.diloco(optax.adam(rate), gmc_jax.exact(), period=period)


def _streaming_diloco(rate, ratio, period, steps):
    return gmc_jax.streaming_diloco(
        optax.adam(rate), gmc_jax.exact(), period=period, fragments=2
    )


def _muloco(rate, ratio, period, steps):
    inner = optax.contrib.muon(rate)
    return gmc_jax.muloco(inner, gmc_jax.exact(), period=period)


def _signum(rate, ratio, period, steps):
    return gmc_jax.signum(rate, gmc_jax.majority_vote(), momentum=0.9)


def _lion(rate, ratio, period, steps):
    return gmc_jax.distributed_lion(rate, gmc_jax.majority_vote())


def _gmc(channel: Callable[[float], Channel], rate, ratio, period, steps):
    return gmc_jax.gmc(rate, channel(ratio))


def _momentum_sgd(rate):
    return optax.sgd(rate, 0.9, nesterov=True)


def _local_sgd_gmc(rate, ratio, period, steps):
    outer = gmc_jax.gmc(1.0, blocks(ratio), momentum=0.5)
    return gmc_jax.periodic(_momentum_sgd(rate), outer, period)


def _slowmo(rate, ratio, period, steps):
    return gmc_jax.slowmo(
        _momentum_sgd(rate), gmc_jax.exact(), period=period, learning_rate=rate
    )


def _power_sgd(rate, ratio, period, steps):
    return gmc_jax.power_sgd(rate, gmc_jax.low_rank(4))


def _rank_4(ratio: float) -> Channel:
    return gmc_jax.low_rank(4)


def _eight_bits(ratio: float) -> Channel:
    return gmc_jax.two_phase(gmc_jax.integers(8))


_once = partial(Candidate, is_main=False)
_whole = (1.0,)

CANDIDATES = {
    "adam": Candidate("Adam, dense", partial(_dense, optax.adam), _whole),
    "nadam": Candidate("NAdam, dense", partial(_dense, optax.nadam), _whole),
    "two_bits_nadam": Candidate(
        "detached NAdam, 2 bits",
        partial(_detached, optax.nadam, two_bits),
        centre=2 * _ADAPTIVE,
    ),
    "never": Candidate(
        "local Adam, one mean", _local_adam, _whole, (0,), _ADAPTIVE / 2
    ),
    "behind": Candidate(
        "feedback behind", partial(_behind, top_k), centre=2 * _ADAPTIVE
    ),
    "in_front": Candidate("feedback in front", partial(_in_front, top_k)),
    "two_bits": Candidate(
        "detached Adam, 2 bits",
        partial(_detached, optax.adam, two_bits),
        centre=2 * _ADAPTIVE,
    ),
    "detached": Candidate(
        "detached Adam", partial(_detached, optax.adam, top_k), centre=2 * _ADAPTIVE
    ),
    "diloco": _once("DiLoCo", _diloco, _whole, (12, 30, 48)),
    "sparse_loco": _once("SparseLoCo", _sparse_loco, (0.12,), (12,)),
    "dense_variance_in_front": _once(
        "in front, dense v",
        partial(_through, dense_variance.in_front),
        (0.01,),
    ),
    "dense_variance_behind": _once(
        "behind, dense v", partial(_through, dense_variance.behind), (0.01,)
    ),
    "one_bit_adam": _once("1-bit Adam", _one_bit_adam, _whole),
    "frozen_variance": _once("frozen variance", _frozen_variance, (0.01,)),
    "demo": _once("DeMo", _demo, (0.01,), centre=2 * _SIGNS),
    "blocks_adam": _once(
        "local Adam, blocks", partial(_local_adam_gmc, blocks), (0.001,), (12,)
    ),
    "blocks_local": _once("local SGD, blocks", _local_sgd_gmc, (0.001,), (12,), _SGD),
    "blocks": _once("GMC of blocks", partial(_gmc, blocks), (0.01, 0.001), (1,), _SGD),
    "gmc": _once("GMC", partial(_gmc, top_k), (0.01,), centre=_SGD),
    "slowmo": _once("SlowMo", _slowmo, _whole, (12, 48), _SGD),
    "power_sgd": _once("PowerSGD, rank 4", _power_sgd, _whole, centre=_SGD),
    "rank_4": _once("rank 4 in front", partial(_in_front, _rank_4), _whole),
    "eight_bits": _once("8 bits in front", partial(_in_front, _eight_bits), _whole),
    "local_adam_gmc": _once(
        "local Adam, GMC", partial(_local_adam_gmc, top_k), (0.12,), (12,)
    ),
    "signum": _once("Signum, vote", _signum, _whole, centre=_SIGNS),
    "lion": _once("Distributed Lion", _lion, _whole, centre=_SIGNS),
    "streaming_diloco": _once("Streaming DiLoCo", _streaming_diloco, _whole, (30,)),
    "muloco": _once("MuLoCo", _muloco, _whole, (30,), 0.02),
}
"""The methods, in the order in which they are trained."""
