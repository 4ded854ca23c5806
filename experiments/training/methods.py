"""The methods that can be compared, one line each."""

from collections.abc import Callable
from functools import partial

import optax

import gmc_jax
from experiments.training.adam_methods import ADAM_METHODS
from experiments.training.compression import Build, Method
from experiments.training.local_methods import LOCAL_METHODS, results_of_votes

RANK = 2  # Of PowerSGD, as for CIFAR-10 in its paper.
DETACHMENTS = (0.0, 0.3, 0.5, 0.8, 1.0)  # The lambdas of the GMC paper's Table 3.


def _through(
    factory: Callable[..., optax.GradientTransformationExtraArgs],
) -> Build:
    """Makes a method with one channel and a momentum."""

    def build(rate, compression, momentum):
        channel = compression.counted(compression.channel())
        return factory(rate, channel, momentum=momentum)

    return build


def _dense(rate, compression, momentum):
    return gmc_jax.dmsgd(rate, compression.counted(gmc_jax.exact()), momentum=momentum)


def _ef_sgd(rate, compression, momentum):
    del momentum
    return gmc_jax.ef_sgd(rate, compression.counted(compression.channel()))


def _cser(rate, compression, momentum):
    channel, reset, period = compression.step_and_reset()
    return gmc_jax.cser(
        rate,
        compression.counted(channel),
        compression.counted(reset, extra=True),
        period=period,
        momentum=momentum,
    )


def _dist_ef_sgdm(rate, compression, momentum):
    return gmc_jax.dist_ef_sgdm(
        rate,
        compression.counted(compression.channel()),
        gmc_jax.simulated_server(compression.code(), seed=compression.seed + 1),
        momentum=momentum,
    )


def _unbiased(compressor: gmc_jax.Compressor) -> Build:
    """Makes momentum SGD through a quantiser that needs no error feedback."""

    def build(rate, compression, momentum):
        channel = gmc_jax.all_gather(compressor, seed=compression.seed)
        return gmc_jax.dmsgd(rate, channel, momentum=momentum)

    return build


def _two_phase(rate, compression, momentum):
    channel = gmc_jax.two_phase(gmc_jax.integers(8), seed=compression.seed)
    return gmc_jax.gmc(rate, channel, momentum=momentum)


def _power_sgd(rate, compression, momentum):
    del compression
    return gmc_jax.power_sgd(rate, gmc_jax.low_rank(RANK), momentum=momentum)


def _one_bit_adam(rate, compression, momentum):
    signs = gmc_jax.all_gather(gmc_jax.scaled_sign(), per_leaf=True)
    freeze_step = max(1, compression.steps // 5)
    return gmc_jax.one_bit_adam(rate, signs, freeze_step=freeze_step, momentum=momentum)


def _distributed_lion(rate, compression, momentum):
    del compression
    votes = gmc_jax.majority_vote()
    return gmc_jax.distributed_lion(rate, votes, momentum=momentum)


def _double_squeeze(rate, compression, momentum):
    del momentum
    return gmc_jax.double_squeeze(
        rate,
        compression.counted(compression.channel()),
        gmc_jax.simulated_server(compression.code(), seed=compression.seed + 1),
    )


def _demo(rate, compression, momentum):
    del momentum
    kept = max(1, round(compression.ratio * 64**2))
    return gmc_jax.demo(rate, kept=kept)


def _rounded(
    factory: Callable[..., optax.GradientTransformationExtraArgs],
) -> Build:
    """Makes a method that rounds gradients at random, without momentum."""

    def build(rate, compression, momentum):
        del momentum
        return factory(rate, seed=compression.seed)

    return build


METHODS = {
    "dmsgd": Method("DMSGD, dense", _dense, dense=True),
    "ef_sgd": Method("EF-SGD", _ef_sgd),
    "ef_momentum": Method("local momentum", _through(gmc_jax.ef_momentum)),
    "dist_ef_sgdm": Method("dist-EF-SGDM", _dist_ef_sgdm),
    "demo": Method("DeMo", _demo, counted=False),
    "double_squeeze": Method("DoubleSqueeze", _double_squeeze),
    "dgc": Method("DGC, masked", _through(gmc_jax.dgc)),
    "dgc_unmasked": Method("DGC", _through(partial(gmc_jax.dgc, factor_masking=False))),
    "cser": Method("CSER", _cser, gradient_at="each worker's x"),
    "def_sgd": Method(
        "DEF", _through(gmc_jax.def_sgd), gradient_at="w - λe of each worker"
    ),
    "def_a": Method(
        "DEF-A", _through(gmc_jax.def_a), gradient_at="w - λe of each worker"
    ),
    "saef": Method("SAEF", _through(gmc_jax.saef), gradient_at="w - e of each worker"),
    "gmc_server_momentum": Method(
        "server momentum", _through(gmc_jax.gmc_server_momentum)
    ),
    "gmc_rate_inside": Method("rate in residual", _through(gmc_jax.gmc_rate_inside)),
    "gmc": Method("GMC", _through(gmc_jax.gmc)),
    "gmc_two_phase": Method("GMC, 8 bits both ways", _two_phase, counted=False),
    "gmc_plus": Method(
        "GMC+", _through(gmc_jax.gmc_plus), gradient_at="w - ληe of each worker"
    ),
    "ef21": Method("EF21", _through(gmc_jax.ef21)),
    "power_sgd": Method("PowerSGD", _power_sgd, counted=False),
    "one_bit_adam": Method("1-bit Adam", _one_bit_adam, counted=False),
    "distributed_lion": Method(
        "Distributed Lion", _distributed_lion, besides=results_of_votes, counted=False
    ),
    "qsgd": Method("QSGD, momentum", _unbiased(gmc_jax.qsgd(7)), counted=False),
    "terngrad": Method(
        "TernGrad, momentum", _unbiased(gmc_jax.terngrad()), counted=False
    ),
    "natural_compression": Method(
        "natural compression", _unbiased(gmc_jax.powers_of_two()), counted=False
    ),
    "quantised_sgd": Method("QSGD", _rounded(gmc_jax.quantised_sgd), counted=False),
    "ternary_sgd": Method("TernGrad", _rounded(gmc_jax.ternary_sgd), counted=False),
}
METHODS |= {
    f"{name}_{detach}": METHODS[name]._replace(
        label=f"{METHODS[name].label}, {detach}",
        build=_through(partial(factory, detach=detach)),
    )
    for name, factory in (
        ("def_sgd", gmc_jax.def_sgd),
        ("def_a", gmc_jax.def_a),
        ("gmc_plus", gmc_jax.gmc_plus),
    )
    for detach in DETACHMENTS
}
METHODS |= LOCAL_METHODS | ADAM_METHODS


def label(method: str) -> str:
    """A method's label in tables and figures; its name if this version has no label."""
    return METHODS[method].label if method in METHODS else method
