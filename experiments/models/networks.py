"""The networks by name; each maps images, or windows of text, to logits in float32.

A network is called as `model(images, train)`. `images` are [n, height, width, channels]
and give logits [n, classes]; windows of text [n, places] give logits [n, places,
classes]. `train` is True in training: batch norm then uses the statistics of the batch,
and stochastic depth drops branches, drawn from the random stream "dropout".

The model `gpt` is not listed. Options choose its size (`experiments.models.gpt`).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn

from experiments.models.characters import Characters
from experiments.models.perceptron import Perceptron
from experiments.models.resnet import resnet20_bn, resnet20_gn
from experiments.models.vit import vit, vit_small

MODELS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": Perceptron,
    "mlp_1m": partial(Perceptron, width=963),
    "mlp_10m": partial(Perceptron, width=3_124),
    "resnet20_bn": resnet20_bn,
    "resnet20_gn": resnet20_gn,
    "vit": vit,
    "vit_small": vit_small,
    "characters": Characters,
}

LANGUAGE = ("characters", "gpt")
"""Networks that read windows of text."""

CONVOLUTIONAL = {"resnet20_bn", "resnet20_gn"}
"""Networks whose gradients are slow under `jax.vmap` on CPUs: `gmc_jax.unrolled`."""
