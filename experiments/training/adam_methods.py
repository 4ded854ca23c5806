"""Methods under AdamW, as transformers are trained; one line each."""

from functools import partial

import optax

import gmc_jax
from experiments.training.compression import Build, Compression, Method

RANK = 4  # Of PowerSGD; more than for CIFAR-10, since matrices are wider.
PERIOD = 12  # Steps between synchronisations.
LONG = 30
_DECAY = 0.1  # Of weights, as GPT-3's, and its second momentum.
_SECOND = 0.95
_SLOW = dict(learning_rate=0.7, momentum=0.9)


def adamw(rate: optax.ScalarOrSchedule, momentum: float) -> optax.GradientTransformation:
    """AdamW as language models are trained; matrices decay, norms do not."""
    return optax.adamw(
        rate, b1=momentum, b2=_SECOND, weight_decay=_DECAY, mask=_matrices
    )


def _matrices(params):
    return optax.tree.map(lambda leaf: leaf.ndim > 1, params)
