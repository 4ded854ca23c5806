"""Methods over Adam and AdamW, as transformers are trained; one line each."""

from collections.abc import Callable
from functools import partial

import jax
import optax

import gmc_jax
from experiments.training.compression import Compression, two_bits
from experiments.training.local_methods import PERIOD, common, in_turn, late, own
from gmc_jax.core import Tree

_FRAGMENTS = 4  # As many as the smallest model has blocks.
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
    return _of_each_worker(adamw(rate, momentum, nesterov=True), compression)


def _detached_nadam(rate, compression, momentum):
    return _of_each_worker(optax.nadam(rate, b1=momentum), compression)


def _of_each_worker(inner, compression):
    channel = two_bits(compression.ratio, compression.seed)
    return gmc_jax.detached_optimizer(inner, channel)


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


def _streaming_diloco(rate, compression, momentum):
    del compression
    fragments = partial(in_turn, _FRAGMENTS)
    inner = adamw(rate, momentum)
    return gmc_jax.streaming_diloco(
        inner, gmc_jax.exact(), period=PERIOD, fragments=fragments
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


ADAM_METHODS = {
    "adamw": common("AdamW, dense", _dense, dense=True),
    "adamw_in_front": common(
        "error feedback, AdamW", partial(_in_front, lambda by: by.channel())
    ),
    "adamw_behind": common("AdamW, error feedback", _behind),
    "detached_optimizer": common(
        "NAdam, detached", _detached_nadam, gradient_at="w + λe of each worker"
    ),
    "adamw_detached": common(
        "NAdamW, detached", _detached, gradient_at="w + λe of each worker"
    ),
    "adamw_power_sgd": common("PowerSGD, AdamW", partial(_in_front, _rank)),
    "adamw_one_bit": common("1-bit AdamW", _one_bit),
    "adamw_diloco": own("DiLoCo, AdamW", _diloco),
    "adamw_streaming": late("Streaming DiLoCo, AdamW", _streaming_diloco),
    "adamw_sparse_loco": own("SparseLoCo, AdamW", _sparse_loco),
    "adamw_gmc": own("local AdamW, GMC", _gmc_between),
    "muon_muloco": own("MuLoCo, Muon", _muloco),
}
