"""The networks, by name; each makes logits of images in float32.

All are called as `model(images, train)`: `images` are [n, height, width, channels], or
windows of text [n, places], for each of whose characters there are logits; and `train`
says whether the network is being trained, which batch statistics and stochastic depth
must know. The latter draws from the random stream "dropout".
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

CONVOLUTIONAL = {"resnet20_bn", "resnet20_gn"}
"""Those whose gradients `jax.vmap` makes slow on CPUs; see `gmc_jax.unrolled`."""
