"""Methods over AdamW, as transformers are trained; one line each."""

from collections.abc import Callable
from functools import partial

import jax
import optax

import gmc_jax
from experiments.training.compression import Compression, Method
from gmc_jax.core import Tree

PERIOD = 12  # Steps between two synchronisations of methods with local steps.
FRAGMENTS = 4
_RANK = 4  # Of PowerSGD; more than for CIFAR-10, whose matrices are smaller.
_DECAY = 0.1  # Of weights, as for GPT-3; its second momentum is 0.95, too.
_SECOND_MOMENTUM = 0.95


def adamw(
    rate: optax.ScalarOrSchedule, momentum: float, nesterov: bool = False
) -> optax.GradientTransformation:
    """AdamW as language models are trained with it: matrices decay, norms do not."""
    return optax.adamw(
        rate,
        b1=momentum,
        b2=_SECOND_MOMENTUM,
        weight_decay=_DECAY,
        mask=_matrices,
        nesterov=nesterov,
    )


def _matrices(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _two_bits(compression: Compression) -> gmc_jax.Channel:
    """Makes a channel of values in two bits, of four times as many entries."""
    largest = gmc_jax.top_k(min(1.0, 4 * compression.ratio))
    code = gmc_jax.quantised(largest, gmc_jax.centroids(2))
    return gmc_jax.all_gather(code, seed=compression.seed)


def _in_front(
    channel: Callable[[Compression], gmc_jax.Channel], rate, compression, momentum
):
    return optax.chain(
        gmc_jax.error_feedback(channel(compression)), adamw(rate, momentum)
    )


def _behind(rate, compression, momentum):
    return optax.chain(
        adamw(rate, momentum), gmc_jax.error_feedback(compression.channel())
    )


def _dense(rate, compression, momentum):
    del compression
    mean = gmc_jax.averaged(gmc_jax.exact())
    return optax.chain(mean, adamw(rate, momentum))


def _detached(rate, compression, momentum):
    inner = adamw(rate, momentum, nesterov=True)
    return gmc_jax.detached_optimizer(inner, _two_bits(compression))


def _one_bit(rate, compression, momentum):
    signs = gmc_jax.all_gather(gmc_jax.scaled_sign(), per_leaf=True)
    return gmc_jax.one_bit_adam(
        rate,
        signs,
        freeze_step=max(1, compression.steps // 5),
        momentum=momentum,
        variance_decay=_SECOND_MOMENTUM,
        weight_decay=_DECAY,
    )


def _diloco(rate, compression, momentum):
    del compression
    inner = adamw(rate, momentum)
    return gmc_jax.diloco(inner, gmc_jax.exact(), period=PERIOD)


def _in_turn(path: str) -> int:
    """Deals blocks to fragments by the numbers in their names."""
    return int("0" + "".join(filter(str.isdigit, path))) % FRAGMENTS


def _streaming_diloco(rate, compression, momentum):
    del compression
    return gmc_jax.streaming_diloco(
        adamw(rate, momentum), gmc_jax.exact(), period=PERIOD, fragments=_in_turn
    )


def _sparse_loco(rate, compression, momentum):
    code = gmc_jax.quantised(
        gmc_jax.chunked_top_k(compression.ratio), gmc_jax.centroids(2)
    )
    channel = gmc_jax.mean_of_senders(code, per_leaf=True, seed=compression.seed)
    return gmc_jax.sparse_loco(adamw(rate, momentum), channel, period=PERIOD)


def _muloco(rate, compression, momentum):
    del compression, momentum
    muon = optax.contrib.muon(rate, weight_decay=_DECAY)
    return gmc_jax.muloco(muon, gmc_jax.exact(), period=PERIOD)


def _gmc_between(rate, compression, momentum):
    outer = gmc_jax.gmc(1.0, compression.channel(), momentum=0.5)
    return gmc_jax.periodic(adamw(rate, momentum), outer, PERIOD)


def _rank(compression):
    del compression
    return gmc_jax.low_rank(_RANK)


# Methods whose parameters differ between workers, and methods that share them.
_own = partial(Method, counted=False, gradient_at="each worker's x")
_common = partial(Method, counted=False)

ADAM_METHODS = {
    "adamw": _common("AdamW, dense", _dense, dense=True),
    "adamw_in_front": _common(
        "error feedback, AdamW", partial(_in_front, lambda by: by.channel())
    ),
    "adamw_behind": _common("AdamW, error feedback", _behind),
    "adamw_detached": _common(
        "NAdamW, detached", _detached, gradient_at="w + λe of each worker"
    ),
    "adamw_power_sgd": _common("PowerSGD, AdamW", partial(_in_front, _rank)),
    "adamw_one_bit": _common("1-bit AdamW", _one_bit),
    "adamw_diloco": _own("DiLoCo, AdamW", _diloco),
    "adamw_streaming": _own("Streaming DiLoCo, AdamW", _streaming_diloco, beside=True),
    "adamw_sparse_loco": _own("SparseLoCo, AdamW", _sparse_loco),
    "adamw_gmc": _own("local AdamW, GMC", _gmc_between),
    "muon_muloco": _own("MuLoCo, Muon", _muloco),
}
