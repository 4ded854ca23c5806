"""The tables of methods.

`METHODS` has a row for each method, `PAPERS` one for each method and variant that has a
transcription with one channel, and `COMPOSITIONS` one for each of these and for what
users compose, from the number of workers.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    count_entries,
    exact,
    gossip,
    random_block,
    scaled_sign,
    simulated_server,
    top_k,
    topologies,
)
from tests.support import (
    references,
    references_local,
    references_low_rank,
    references_server,
)


class Method(NamedTuple):
    """A method for eight workers, and what differs between them.

    A path names a leaf, or the tree of the parameters' structure that has it, in the
    state of the method. "params" stands for the parameters themselves.
    """

    tx: optax.GradientTransformation
    differs: set[str]


class Paper(NamedTuple):
    """A method, and its transcription in NumPy.

    `ours(learning_rate, channel)` makes the method. `residual` is the factor between
    the residual of the transcription and that of the state: -1 if ours is in units of
    steps, signed like updates, and 0 if there is none or a file of its own tests it.
    """

    ours: Callable
    paper: Callable
    residual: int


# One row a method.

RATE = 0.1
TOP, BLOCK = all_gather(top_k(0.2)), all_reduce(random_block(0.2))
EXACT, ONE_PEER = exact(), topologies.one_peer_exponential(8)
RING = topologies.ring(8)
RESET = all_reduce(random_block(0.4), seed=1)
SIGNS = all_gather(scaled_sign(), per_leaf=True)


def by_name(path: str) -> int:
    """Two fragments, the bias first."""
    return int("kernel" in path)


METHODS = {
    "dmsgd": Method(gmc_jax.dmsgd(RATE, TOP), set()),
    "dmsgd_local": Method(gmc_jax.dmsgd_local(RATE, TOP), {"0.trace"}),
    "ef_sgd": Method(gmc_jax.ef_sgd(RATE, TOP), {"1.residual"}),
    "ef_momentum": Method(gmc_jax.ef_momentum(RATE, BLOCK), {"0.trace", "2.residual"}),
    "gmc": Method(gmc_jax.gmc(RATE, TOP), {"0.inner.residual"}),
    "gmc_plus": Method(gmc_jax.gmc_plus(RATE, BLOCK), {"0.inner.inner.residual"}),
    "gmc_server_momentum": Method(
        gmc_jax.gmc_server_momentum(RATE, TOP), {"0.residual"}
    ),
    "gmc_rate_inside": Method(
        gmc_jax.gmc_rate_inside(RATE, BLOCK), {"1.inner.residual"}
    ),
    "dgc": Method(gmc_jax.dgc(RATE, TOP), {"0.momentum", "0.feedback.residual"}),
    "def_sgd": Method(gmc_jax.def_sgd(RATE, BLOCK), {"0.trace", "2.inner.residual"}),
    "def_a": Method(
        gmc_jax.def_a(RATE, BLOCK),
        {"inner.0.trace", "inner.2.inner.residual"},
    ),
    "saef": Method(
        gmc_jax.saef(RATE, TOP, period=2),
        {"0.trace", "2.inner.inner.residual"},
    ),
    "cser": Method(
        gmc_jax.cser(RATE, BLOCK, RESET, period=2),
        {"params", "0.trace", "2.error"},
    ),
    "local_sgd": Method(
        gmc_jax.local_sgd(RATE, BLOCK, period=2, momentum=0.9),
        {"params", "inner.0.trace"},
    ),
    "qsparse_local_sgd": Method(
        gmc_jax.qsparse_local_sgd(RATE, TOP, period=2, momentum=0.9),
        {"params", "inner.0.trace", "outer.0.residual"},
    ),
    "post_local_sgd": Method(
        gmc_jax.post_local_sgd(RATE, EXACT, local_from_step=2, period=3),
        {"params"},
    ),
    "double_averaging": Method(
        gmc_jax.double_averaging(RATE, EXACT, EXACT, period=2),
        {"params", "inner.0.trace"},
    ),
    "slowmo": Method(
        gmc_jax.slowmo(optax.sgd(RATE), EXACT, period=2, learning_rate=RATE),
        {"params"},
    ),
    "bmuf": Method(gmc_jax.bmuf(optax.sgd(RATE), TOP, period=2), {"params"}),
    "lookahead": Method(
        gmc_jax.lookahead(optax.sgd(RATE), gmc_jax.no_communication(), period=2),
        {"params", "anchor"},
    ),
    "diloco": Method(
        gmc_jax.diloco(optax.adamw(RATE), EXACT, period=2),
        {"params", "inner.0.mu", "inner.0.nu"},
    ),
    "muloco": Method(
        gmc_jax.muloco(optax.sgd(RATE, 0.9), TOP, period=2),
        {"params", "inner.0.trace"},
    ),
    "easgd": Method(
        gmc_jax.easgd(optax.sgd(RATE, 0.9), TOP, period=2), {"params", "0.0.trace"}
    ),
    "cocod_sgd": Method(
        gmc_jax.cocod_sgd(optax.sgd(RATE, 0.9), TOP, period=2),
        {"params", "0.0.trace", "1.sent"},
    ),
    "overlap_local_sgd": Method(
        gmc_jax.overlap_local_sgd(optax.sgd(RATE, 0.9), TOP, period=2),
        {"params", "0.0.trace", "1.sent"},
    ),
    "streaming_diloco": Method(
        gmc_jax.streaming_diloco(
            optax.adamw(RATE), EXACT, period=2, fragments=by_name, delay=1
        ),
        {"params", "sent", "inner.0.mu", "inner.0.nu"},
    ),
    "d_psgd": Method(
        gmc_jax.d_psgd(RATE, ONE_PEER, momentum=0.9), {"params", "0.0.trace"}
    ),
    "choco_sgd": Method(
        gmc_jax.choco_sgd(RATE, gmc_jax.gossip_differences(RING, top_k(0.2), 0.4)),
        {"params", "1.estimate", "1.disagreement"},
    ),
    "dcd_psgd": Method(
        gmc_jax.dcd_psgd(RATE, gmc_jax.compressed_gossip(RING, random_block(0.5))),
        {"params", "1.disagreement"},
    ),
    "matcha": Method(
        gmc_jax.matcha(RATE, topologies.matcha(RING.edges, 0.5)), {"params"}
    ),
    "d2": Method(
        gmc_jax.d2(RATE, topologies.lazy(topologies.ring(8))),
        {"params", "1.correction"},
    ),
    "qg_dsgdm": Method(gmc_jax.qg_dsgdm(RATE, ONE_PEER), {"params", "momentum"}),
    "gradient_tracking": Method(
        gmc_jax.gradient_tracking(RATE, RING),
        {"params", "0.tracker", "0.last"},
    ),
    "sgp": Method(
        gmc_jax.sgp(RATE, ONE_PEER, delay=1),
        {"params", "1.weight", "1.channel.in_flight.0.0", "1.channel.in_flight.0.1"},
    ),
    "sign_sgd": Method(gmc_jax.sign_sgd(RATE, gmc_jax.majority_vote()), set()),
    "signum": Method(gmc_jax.signum(RATE, gmc_jax.majority_vote()), {"0.ema"}),
    "ef_sign_sgd": Method(gmc_jax.ef_sign_sgd(RATE), {"1.residual"}),
    "dist_ef_sgdm": Method(
        gmc_jax.dist_ef_sgdm(
            RATE, SIGNS, simulated_server(scaled_sign(), per_leaf=True)
        ),
        {"0.trace", "2.residual"},
    ),
    # The next factor depends on the last bits of this one: less so with these values.
    "power_sgd": Method(
        gmc_jax.power_sgd(RATE, gmc_jax.low_rank(1, seed=2), momentum=0.5),
        {"0.residual"},
    ),
    "ef21": Method(gmc_jax.ef21(RATE, TOP), {"0.ema", "1.sent"}),
    "distributed_lion": Method(
        gmc_jax.distributed_lion(RATE, gmc_jax.majority_vote()), {"0.mu"}
    ),
    "one_bit_adam": Method(
        gmc_jax.one_bit_adam(
            RATE,
            SIGNS,
            freeze_step=2,
            server_channel=simulated_server(scaled_sign(), per_leaf=True),
        ),
        {"0.inner.0.residual"},
    ),
    "double_squeeze": Method(
        gmc_jax.double_squeeze(RATE, TOP, simulated_server(top_k(0.4))), {"0.residual"}
    ),
    "demo": Method(gmc_jax.demo(RATE, chunk=4, kept=2), {"1.residual"}),
    "sparse_loco": Method(
        gmc_jax.sparse_loco(
            optax.sgd(RATE, 0.9), gmc_jax.mean_of_senders(top_k(0.2)), period=2
        ),
        {"params", "inner.0.trace", "outer.0.residual"},
    ),
}

# Transcriptions.


def alone(rate: optax.ScalarOrSchedule, momentum: float = 0.9):
    """Momentum SGD on one worker, with the momentum in float32 for 16 bits."""
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


# Of any number of workers.


COUNTED_BLOCK = count_entries(all_gather(random_block(0.2)))  # It compiles fast.


def uneven(workers: int) -> gmc_jax.Topology:
    """Weights between workers all differ, and columns sum to 1."""
    matrix = np.random.default_rng(workers).uniform(0.1, 1, size=(workers, workers))
    return gmc_jax.Topology((matrix / matrix.sum(axis=0),))


def pushed(workers: int):
    channel = gossip(uneven(workers))
    return optax.chain(optax.sgd(0.1, momentum=0.5), gmc_jax.push_sum(channel))


def star(workers: int) -> gmc_jax.Topology:
    """A hub and its neighbours; doubly stochastic for one or two workers."""
    hub = np.zeros((workers, workers))
    hub[0, 1:] = hub[1:, 0] = 1
    return topologies.pushing(hub)


def lazy(workers: int) -> gmc_jax.Topology:
    return topologies.lazy(topologies.ring(workers))


# From the number of workers to the method.
COMPOSITIONS: dict[str, Callable[[int], optax.GradientTransformation]] = {
    **{
        name: lambda _, method=method: method.ours(0.02, COUNTED_BLOCK)
        for name, method in PAPERS.items()
    },
    "count_entries": lambda _: gmc_jax.gmc(0.1, count_entries(TOP)),
    "late messages": lambda _: gmc_jax.gmc(
        0.02, all_gather(top_k(0.2), per_leaf=True, delay=1), momentum=0.5
    ),
    "d_psgd": lambda k: gmc_jax.d_psgd(0.1, lazy(k), momentum=0.5),
    "sgp": pushed,
    "osgp": lambda k: gmc_jax.sgp(0.1, lazy(k), momentum=0.5, delay=2),
    "uneven osgp": lambda k: gmc_jax.sgp(0.1, uneven(k), delay=1),
    "sgp over a star": lambda k: gmc_jax.sgp(0.1, star(k)),
    "d2": lambda k: gmc_jax.d2(0.1, lazy(k), momentum=0.5),
    "choco_sgd": lambda k: gmc_jax.choco_sgd(
        0.1, gmc_jax.gossip_differences(lazy(k), random_block(0.2), 0.5), momentum=0.5
    ),
    "dcd_psgd": lambda k: gmc_jax.dcd_psgd(
        0.1, gmc_jax.compressed_gossip(lazy(k), random_block(0.2)), momentum=0.5
    ),
    "matcha": lambda k: gmc_jax.matcha(
        0.1, topologies.matcha(topologies.ring(k).edges, 0.5), momentum=0.5
    ),
    "qg_dsgdm": lambda k: gmc_jax.qg_dsgdm(0.1, lazy(k)),
    "gradient_tracking": lambda k: gmc_jax.gradient_tracking(0.1, lazy(k)),
    "slowmo over sgp": lambda k: gmc_jax.slowmo(pushed(k), exact(), period=4),
    "slowmo over cser": lambda k: gmc_jax.slowmo(
        gmc_jax.cser(0.1, COUNTED_BLOCK, exact(), period=3), exact(), period=4
    ),
    "slowmo over local_sgd": lambda k: gmc_jax.slowmo(
        gmc_jax.local_sgd(0.1, exact(), period=2), exact(), period=4
    ),
    "slowmo without communication": lambda k: gmc_jax.slowmo(
        optax.sgd(0.1), gmc_jax.no_communication(), period=4
    ),
    "slowmo without communication over cser": lambda k: gmc_jax.slowmo(
        gmc_jax.cser(0.1, COUNTED_BLOCK, exact(), period=3),
        gmc_jax.no_communication(),
        period=4,
    ),
    "local adam": lambda k: gmc_jax.diloco(optax.adam(0.1), exact(), period=4),
    "eager streaming": lambda k: gmc_jax.streaming_diloco(
        optax.sgd(0.1), COUNTED_BLOCK, period=4, fragments=1, merge=gmc_jax.eager()
    ),
    "streaming of two fragments": lambda k: gmc_jax.streaming(
        optax.sgd(0.1, momentum=0.5),
        gmc_jax.error_feedback(COUNTED_BLOCK),
        optax.scale(-1),
        period=4,
        fragments=by_name,
        delay=3,
        merge=gmc_jax.corrected(),
    ),
    "sign_sgd": lambda k: gmc_jax.sign_sgd(0.1, gmc_jax.majority_vote()),
    "signum": lambda k: gmc_jax.signum(0.1, gmc_jax.majority_vote()),
    "ef_sign_sgd": lambda k: gmc_jax.ef_sign_sgd(0.1),
    "power_sgd of matrices": lambda k: gmc_jax.power_sgd(0.1, gmc_jax.low_rank(1)),
    "matrices between syncs": lambda k: gmc_jax.periodic(
        optax.sgd(0.1),
        gmc_jax.power_sgd(0.5, gmc_jax.alternating_low_rank(1)),
        period=2,
    ),
    "demo": lambda k: gmc_jax.demo(0.1, decay=0.9, chunk=4, kept=2),
    "two phases": lambda k: gmc_jax.gmc(0.1, gmc_jax.two_phase(scaled_sign())),
    "majority vote with residuals": lambda k: optax.chain(
        optax.scale(-0.1), gmc_jax.error_feedback(gmc_jax.majority_vote())
    ),
    "joined": lambda k: gmc_jax.gmc(
        0.1, gmc_jax.join_channels([exact(), COUNTED_BLOCK], [3])
    ),
    "accumulated": lambda k: gmc_jax.accumulate(gmc_jax.gmc(0.1, COUNTED_BLOCK), 2),
    "guarded": lambda k: gmc_jax.skip_nonfinite(gmc_jax.gmc(0.1, COUNTED_BLOCK)),
    "injected": lambda k: optax.inject_hyperparams(
        lambda learning_rate: gmc_jax.gmc(learning_rate, COUNTED_BLOCK)
    )(learning_rate=0.1),
    "partitioned": lambda k: optax.partition(
        {"sent": pushed(k), "whole": gmc_jax.dmsgd(0.1, exact())},
        {"bias": "whole", "kernel": "sent"},
    ),
}
