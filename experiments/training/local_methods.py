"""Methods with local steps, gossip or signs, one line each."""

from collections.abc import Callable
from functools import partial

import optax

import gmc_jax
from experiments.training.compression import Compression, Method
from gmc_jax import topologies

PERIOD = 12  # Of SlowMo over local SGD in its paper; here for all inner optimizers.
FRAGMENTS = 2  # Of Streaming DiLoCo; the smallest model has two layers.
CONSENSUS_STEP = 0.1  # CHOCO's authors tune it for each compressor.
SLOW_MOMENTA = (0.0, 0.4, 0.6, 0.8)  # SlowMo's authors tune it from 0.4 to 0.8.


def _local_sgd(rate, compression, momentum):
    """SlowMo's inner optimizer in its paper: Nesterov's momentum on each worker."""
    del compression
    return optax.sgd(rate, momentum, nesterov=True)


def _local_adam(rate, compression, momentum):
    del compression
    return optax.adam(rate, b1=momentum)


def _all_reduce(rate, compression, momentum):
    del compression
    return gmc_jax.dmsgd(rate, gmc_jax.exact(), momentum=momentum)


def _sgp(rate, compression, momentum, delay=0):
    peers = topologies.one_peer_exponential(compression.workers)
    return gmc_jax.sgp(rate, peers, momentum=momentum, nesterov=True, delay=delay)


def _d_psgd(rate, compression, momentum):
    ring = topologies.ring(compression.workers)
    return gmc_jax.d_psgd(rate, ring, momentum=momentum)


def _qg_dsgdm(rate, compression, momentum):
    ring = topologies.ring(compression.workers)
    return gmc_jax.qg_dsgdm(rate, ring, momentum=momentum)


def _choco_sgd(rate, compression, momentum):
    ring = topologies.ring(compression.workers)
    channel = gmc_jax.gossip_differences(
        ring, compression.code(), CONSENSUS_STEP, seed=compression.seed
    )
    return gmc_jax.choco_sgd(rate, channel, momentum=momentum)


def _dcd_psgd(rate, compression, momentum):
    ring = topologies.ring(compression.workers)
    channel = gmc_jax.compressed_gossip(ring, compression.code(), seed=compression.seed)
    return gmc_jax.dcd_psgd(rate, channel, momentum=momentum)


def _matcha(rate, compression, momentum):
    """Half of the matchings of a ring, on average."""
    ring = topologies.ring(compression.workers)
    drawn = topologies.matcha(ring.edges, 0.5, seed=compression.seed)
    return gmc_jax.matcha(rate, drawn, momentum=momentum)


def _d2(rate, compression, momentum):
    ring = topologies.lazy(topologies.ring(compression.workers))
    return gmc_jax.d2(rate, ring, momentum=momentum)


def _gradient_tracking(rate, compression, momentum):
    ring = topologies.ring(compression.workers)
    return gmc_jax.gradient_tracking(rate, ring, momentum=momentum)


def results_of_votes(compression: Compression) -> float:
    """The results that a worker counts and sends, relative to its votes."""
    return 1 / compression.workers


def _this_training(tx, compression, params):
    return gmc_jax.message_bits(tx, params, steps=compression.steps)


# The inner optimizers of SlowMo, and their labels.
BASES = {
    "local_sgd": (_local_sgd, "local SGD"),
    "local_adam": (_local_adam, "local Adam"),
    "sgp": (_sgp, "SGP"),
    "osgp": (partial(_sgp, delay=1), "OSGP"),
    "d_psgd": (_d_psgd, "D-PSGD"),
    "all_reduce": (_all_reduce, "all-reduce"),
}


def _slowmo(base: Callable, slow_momentum: float) -> Callable:
    def build(rate, compression, momentum):
        return gmc_jax.slowmo(
            base(rate, compression, momentum),
            gmc_jax.exact(),
            period=PERIOD,
            slow_momentum=slow_momentum,
            learning_rate=rate,
        )

    return build


def _periodic(factory: Callable, *more, **options) -> Callable:
    """Makes a method that has a local momentum and a period."""

    def build(rate, compression, momentum):
        del compression
        return factory(
            rate, gmc_jax.exact(), *more, period=PERIOD, momentum=momentum, **options
        )

    return build


def _post_local_sgd(rate, compression, momentum):
    """Trains locally in the second half."""
    return _periodic(
        gmc_jax.post_local_sgd,
        nesterov=True,
        local_from_step=max(1, compression.steps // 2),
    )(rate, compression, momentum)


def _over_local_sgd(factory: Callable, **options) -> Callable:
    def build(rate, compression, momentum):
        base = _local_sgd(rate, compression, momentum)
        return factory(base, gmc_jax.exact(), period=PERIOD, **options)

    return build


def _diloco(rate, compression, momentum):
    del compression, momentum
    return gmc_jax.diloco(optax.adamw(rate), gmc_jax.exact(), period=PERIOD)


def _muloco(rate, compression, momentum):
    del compression, momentum
    muon = optax.contrib.muon(rate)
    return gmc_jax.muloco(muon, gmc_jax.exact(), period=PERIOD)


def _qsparse_local_sgd(rate, compression, momentum):
    return gmc_jax.qsparse_local_sgd(
        rate, compression.channel(), period=PERIOD, momentum=momentum, nesterov=True
    )


def in_turn(fragments: int, path: str) -> int:
    """Deals layers to fragments by the numbers in their names."""
    return int("0" + "".join(filter(str.isdigit, path))) % fragments


def _streaming_diloco(rate, compression, momentum):
    del compression, momentum
    fragments = partial(in_turn, FRAGMENTS)
    return gmc_jax.streaming_diloco(
        optax.adamw(rate), gmc_jax.exact(), period=PERIOD, fragments=fragments
    )


def _sparse_loco(rate, compression, momentum):
    """Over the inner optimizer of DiLoCo; the mean is over senders."""
    del momentum
    channel = gmc_jax.mean_of_senders(compression.code(), seed=compression.seed)
    return gmc_jax.sparse_loco(optax.adamw(rate), channel, period=PERIOD)


def _local_gmc(rate, compression, momentum):
    """Local SGD; GMC compresses pseudo-gradients, with momentum across periods."""
    outer = gmc_jax.gmc(1.0, compression.channel(), momentum=0.5)
    return gmc_jax.periodic(_local_sgd(rate, compression, momentum), outer, PERIOD)


def _adam(rate, compression, momentum):
    del compression
    mean = gmc_jax.averaged(gmc_jax.exact())
    return optax.chain(mean, optax.adam(rate, b1=momentum))


def _sign_sgd(rate, compression, momentum):
    del compression, momentum
    return gmc_jax.sign_sgd(rate, gmc_jax.majority_vote())


def _signum(rate, compression, momentum):
    del compression
    return gmc_jax.signum(rate, gmc_jax.majority_vote(), momentum=momentum)


def _ef_sign_sgd(rate, compression, momentum):
    del compression, momentum
    return gmc_jax.ef_sign_sgd(rate)


# Methods whose parameters differ between workers, and methods that share them.
own = partial(Method, counted=False, gradient_at="each worker's x")
common = partial(Method, counted=False)
late = partial(own, beside=True)

LOCAL_METHODS = {
    "local_sgd": own("local SGD", _periodic(gmc_jax.local_sgd, nesterov=True)),
    "post_local_sgd": own("post-local SGD", _post_local_sgd, sends=_this_training),
    "double_averaging": own(
        "double averaging",
        _periodic(gmc_jax.double_averaging, gmc_jax.exact(), nesterov=True),
    ),
    "local_adam": own("local Adam", _slowmo(_local_adam, 0.0)),
    "bmuf": own("BMUF", _over_local_sgd(gmc_jax.bmuf)),
    "lookahead": own("Lookahead", _over_local_sgd(gmc_jax.lookahead)),
    "diloco": own("DiLoCo", _diloco),
    "muloco": own("MuLoCo", _muloco),
    "easgd": own("EAMSGD", _over_local_sgd(gmc_jax.easgd)),
    "cocod_sgd": late("CoCoD-SGD", _over_local_sgd(gmc_jax.cocod_sgd)),
    "overlap_local_sgd": late(
        "Overlap-Local-SGD", _over_local_sgd(gmc_jax.overlap_local_sgd)
    ),
    "qsparse_local_sgd": own("Qsparse-local-SGD", _qsparse_local_sgd),
    "streaming_diloco": late("Streaming DiLoCo", _streaming_diloco),
    "sparse_loco": own("SparseLoCo", _sparse_loco),
    "local_gmc": own("local SGD, GMC", _local_gmc),
    "d_psgd": own("D-PSGD", _d_psgd),
    "qg_dsgdm": own("QG-DSGDm", _qg_dsgdm),
    "choco_sgd": own("CHOCO-SGD", _choco_sgd),
    "dcd_psgd": own("DCD-PSGD", _dcd_psgd),
    "matcha": own("MATCHA", _matcha),
    "d2": own("D2", _d2),
    "gradient_tracking": own("gradient tracking", _gradient_tracking),
    "sgp": own("SGP", _sgp),
    "osgp": late("OSGP", partial(_sgp, delay=1)),
    "adam": common("Adam, dense", _adam, dense=True),
    "sign_sgd": common("signSGD, vote", _sign_sgd, besides=results_of_votes),
    "signum": common("Signum, vote", _signum, besides=results_of_votes),
    "ef_sign_sgd": common("EF-signSGD", _ef_sign_sgd),
    "slowmo": own("SlowMo, local SGD", _slowmo(_local_sgd, 0.5)),
}
LOCAL_METHODS |= {
    f"slowmo_{name}_{beta}": own(f"SlowMo {beta}, {label}", _slowmo(base, beta))
    for name, (base, label) in BASES.items()
    for beta in SLOW_MOMENTA
}
