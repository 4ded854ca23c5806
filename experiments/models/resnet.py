"""ResNet-20, with batch norm or with group norm."""

from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

# Makes a new norm layer; the argument is whether the network is in training.
Norm: TypeAlias = Callable[[bool], nn.Module]

NORM_GROUPS = 8  # Our choice, as the papers give none; it divides 16, 32 and 64.


def resnet20_bn(classes: int) -> nn.Module:
    """ResNet-20 with batch norm; each worker keeps its own statistics.

    In training it normalises with the mean and variance of the worker's own batch. It
    keeps running averages of them in `batch_stats`, 0.9 of the old plus 0.1 of the new,
    and normalises with these in evaluation.

    References:
      Ioffe, Szegedy: Batch Normalization, 2015.
    """
    return ResNet20(classes, batch_norm)


def resnet20_gn(classes: int) -> nn.Module:
    """ResNet-20 with group norm, for workers whose batch statistics disagree.

    Each image is normalised by itself, in 8 groups of channels. So all workers compute
    gradients of the same function, even if they hold different labels.

    References:
      Wu, He: Group Normalization, 2018.
    """
    return ResNet20(classes, group_norm)


def batch_norm(train: bool) -> nn.Module:
    """Batch norm: statistics of the batch in training, running averages otherwise."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)


def group_norm(train: bool) -> nn.Module:
    """Group norm: statistics of each image by itself, in training and evaluation."""
    del train
    return nn.GroupNorm(num_groups=NORM_GROUPS)


class ResNet20(nn.Module):
    """ResNet-20 for small images.

    It has three stages of three blocks with 16, 32 and 64 channels, and shortcuts
    without parameters: 269,722 parameters for 10 classes of colour images, with either
    norm.

    References:
      He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2016, section
      4.2 (shortcut A).
    """

    classes: int
    norm: Norm

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        hidden = nn.relu(self.norm(train)(_conv(16)(images)))
        for channels in (16, 32, 64):
            for _ in range(3):
                hidden = Block(channels, self.norm)(hidden, train)
        return nn.Dense(self.classes)(hidden.mean(axis=(1, 2)))


class Block(nn.Module):
    """Two convolutions beside a shortcut; halves the image when channels double."""

    channels: int
    norm: Norm

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps [n, h, w, c] to [n, h, w, channels], or half of h and w."""
        grow = self.channels - images.shape[-1]
        stride = 2 if grow else 1
        hidden = nn.relu(self.norm(train)(_conv(self.channels, stride)(images)))
        hidden = self.norm(train)(_conv(self.channels)(hidden))
        shortcut = images[:, ::stride, ::stride]
        shortcut = jnp.pad(shortcut, ((0, 0),) * 3 + ((grow // 2, grow - grow // 2),))
        return nn.relu(hidden + shortcut)


def _conv(channels: int, stride: int = 1) -> nn.Conv:
    return nn.Conv(
        channels,
        (3, 3),
        strides=stride,
        padding=1,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
    )
