"""The table of methods that have a transcription with one channel, and of variants."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import optax

import gmc_jax
from gmc_jax import all_gather, simulated_server, top_k
from tests.support import (
    references,
    references_local,
    references_low_rank,
    references_server,
)


class Paper(NamedTuple):
    """A method, and its transcription in NumPy.

    `ours(learning_rate, channel)` makes the method. `residual` is the factor between
    the residual of the transcription and that of the state: -1 if ours is in units of
    steps, signed like updates, and 0 if there is none or a file of its own tests it.
    """

    ours: Callable
    paper: Callable
    residual: int


def alone(rate: optax.ScalarOrSchedule, momentum: float = 0.9):
    """Momentum SGD of each worker by itself."""
    return gmc_jax.dmsgd_local(rate, gmc_jax.no_communication(), momentum=momentum)


# A second channel, and the selection that it makes in a transcription.
SECOND = all_gather(top_k(0.4)), references.largest(0.4)
PAPERS = {
    "dmsgd": Paper(gmc_jax.dmsgd, references.dmsgd, 0),
    "dmsgd_local": Paper(gmc_jax.dmsgd_local, references.dmsgd_local, 0),
    "ef_sgd": Paper(gmc_jax.ef_sgd, references.ef_sgd, -1),
    "ef_momentum": Paper(gmc_jax.ef_momentum, references.ef_momentum, -1),
    "def_sgd": Paper(gmc_jax.def_sgd, references.def_sgd, -1),
    "def_a": Paper(gmc_jax.def_a, references.def_sgd, -1),
    # Over Adam a file of its own tests it.
    "detached_optimizer": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.detached_optimizer(
            alone(rate, momentum), channel, detach=0.4
        ),
        functools.partial(references.def_sgd, detach=0.4),
        -1,
    ),
    "saef": Paper(gmc_jax.saef, references.saef, -1),
    "saef that averages": Paper(
        functools.partial(gmc_jax.saef, period=7),
        functools.partial(references.saef, period=7),
        -1,
    ),
    "gmc": Paper(gmc_jax.gmc, references.gmc, 1),
    "gmc_plus": Paper(gmc_jax.gmc_plus, references.gmc_plus, 1),
    "gmc_server_momentum": Paper(
        gmc_jax.gmc_server_momentum, references.gmc_server_momentum, 1
    ),
    "gmc_rate_inside": Paper(gmc_jax.gmc_rate_inside, references.gmc_rate_inside, -1),
    "dgc": Paper(gmc_jax.dgc, references.dgc, 1),
    "dgc without masking": Paper(
        functools.partial(gmc_jax.dgc, factor_masking=False), references.dgc_unmasked, 1
    ),
    "dgc with nesterov": Paper(
        functools.partial(gmc_jax.dgc, nesterov=True), references.dgc_nesterov, 1
    ),
    "power_sgd": Paper(gmc_jax.power_sgd, references_low_rank.power_sgd, 1),
    "ef21": Paper(gmc_jax.ef21, references.ef21, 0),
    "distributed_lion": Paper(
        functools.partial(gmc_jax.distributed_lion, weight_decay=1.0),
        functools.partial(references.distributed_lion, decay=1.0),
        0,
    ),
    "one_bit_adam": Paper(
        functools.partial(
            gmc_jax.one_bit_adam, freeze_step=10, variance_decay=0.9, weight_decay=1.0
        ),
        functools.partial(
            references_server.one_bit_adam, freeze=10, beta2=0.9, decay=1.0
        ),
        1,
    ),
    "cser": Paper(
        functools.partial(gmc_jax.cser, reset_channel=SECOND[0], period=3),
        functools.partial(references.cser, reset=SECOND[1], period=3),
        0,
    ),
    "cser with nesterov": Paper(
        functools.partial(
            gmc_jax.cser, reset_channel=SECOND[0], period=7, nesterov=True
        ),
        functools.partial(references.cser, reset=SECOND[1], period=7, nesterov=True),
        0,
    ),
    "local_sgd": Paper(
        functools.partial(gmc_jax.local_sgd, period=4, momentum=0.9),
        functools.partial(references_local.local_sgd, period=4),
        0,
    ),
    "local_sgd that resets": Paper(
        functools.partial(
            gmc_jax.local_sgd,
            period=3,
            momentum=0.9,
            nesterov=True,
            buffers=gmc_jax.reset_buffers(),
        ),
        functools.partial(
            references_local.local_sgd, period=3, nesterov=True, buffers="reset"
        ),
        0,
    ),
    "qsparse_local_sgd": Paper(
        functools.partial(
            gmc_jax.qsparse_local_sgd, period=4, momentum=0.9, nesterov=True
        ),
        functools.partial(references_local.qsparse_local_sgd, period=4, nesterov=True),
        1,
    ),
    "post_local_sgd": Paper(
        functools.partial(
            gmc_jax.post_local_sgd, local_from_step=10, period=6, momentum=0.9
        ),
        functools.partial(references_local.post_local_sgd, start=10, period=6),
        0,
    ),
    "double_averaging": Paper(
        functools.partial(
            gmc_jax.double_averaging, buffer_channel=gmc_jax.exact(), period=4
        ),
        functools.partial(references_local.local_sgd, period=4, buffers="average"),
        0,
    ),
    "slowmo": Paper(
        lambda rate, channel, momentum=0.5: gmc_jax.slowmo(
            alone(rate),
            channel,
            period=4,
            slow_momentum=momentum,
            slow_learning_rate=0.7,
            learning_rate=rate,
        ),
        functools.partial(references_local.slowmo, inner=0.9, alpha=0.7, period=4),
        0,
    ),
    "bmuf": Paper(
        lambda rate, channel, momentum=0.5: gmc_jax.bmuf(
            alone(rate),
            channel,
            period=4,
            block_momentum=momentum,
            block_learning_rate=0.7,
        ),
        functools.partial(references_local.bmuf, inner=0.9, zeta=0.7, period=4),
        0,
    ),
    "bmuf with nesterov": Paper(
        lambda rate, channel, momentum=0.5: gmc_jax.bmuf(
            alone(rate),
            channel,
            period=4,
            block_momentum=momentum,
            nesterov=True,
        ),
        functools.partial(
            references_local.bmuf, inner=0.9, zeta=1.0, period=4, nesterov=True
        ),
        0,
    ),
    "lookahead": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.lookahead(
            alone(rate, momentum),
            channel,
        ),
        functools.partial(references_local.lookahead, alpha=0.5, period=5),
        0,
    ),
    "diloco": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.diloco(
            alone(rate),
            channel,
            period=4,
            outer_momentum=momentum,
        ),
        functools.partial(references_local.diloco, inner=0.9, outer_rate=0.7, period=4),
        0,
    ),
    "muloco": Paper(
        lambda rate, channel, momentum=0.6: gmc_jax.muloco(
            alone(rate),
            channel,
            period=4,
            outer_learning_rate=lambda s: 0.7 / (1 + s),
            outer_momentum=momentum,
        ),
        functools.partial(
            references_local.muloco,
            inner=0.9,
            outer_rate=lambda s: 0.7 / (1 + s),
            period=4,
        ),
        0,
    ),
    "easgd": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.easgd(
            alone(rate, momentum),
            channel,
            period=4,
        ),
        functools.partial(references_local.easgd, centre_rate=0.9, period=4),
        0,
    ),
    "cocod_sgd": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.cocod_sgd(
            alone(rate, momentum),
            channel,
            period=4,
        ),
        functools.partial(references_local.cocod_sgd, period=4),
        0,
    ),
    "overlap_local_sgd": Paper(
        lambda rate, channel, momentum=0.7: gmc_jax.overlap_local_sgd(
            alone(rate),
            channel,
            period=4,
            anchor_momentum=momentum,
        ),
        functools.partial(
            references_local.overlap_local_sgd, inner=0.9, alpha=0.6, period=4
        ),
        0,
    ),
    "streaming_diloco": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.streaming_diloco(
            alone(rate),
            channel,
            period=4,
            fragments=1,
            delay=2,
            merge=gmc_jax.mix(0.25),
            outer_momentum=momentum,
        ),
        functools.partial(
            references_local.streaming_diloco,
            inner=0.9,
            outer_rate=0.4,
            period=4,
            delay=2,
            alpha=0.25,
        ),
        0,
    ),
    "dist_ef_sgdm": Paper(
        # With 0.4 two entries differ by 1e-7, so rounding would decide between them.
        functools.partial(
            gmc_jax.dist_ef_sgdm, server_channel=simulated_server(top_k(0.25))
        ),
        functools.partial(
            references_server.dist_ef_sgdm, server=references.largest(0.25)
        ),
        0,
    ),
    "double_squeeze": Paper(
        functools.partial(
            gmc_jax.double_squeeze, server_channel=simulated_server(top_k(0.25))
        ),
        functools.partial(
            references_server.double_squeeze, server=references.largest(0.25)
        ),
        0,
    ),
    "sparse_loco": Paper(
        lambda rate, channel, momentum=0.9: gmc_jax.sparse_loco(
            alone(rate, momentum),
            channel,
            period=4,
            outer_learning_rate=0.8,
        ),
        functools.partial(
            references_local.sparse_loco, fade=0.95, outer_rate=0.8, period=4
        ),
        1,
    ),
}
