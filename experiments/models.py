"""Networks: a perceptron and ResNet-20, both without batch statistics."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

NORM_GROUPS = 8  # Our choice: the papers do not say; it divides 16, 32 and 64.


class Perceptron(nn.Module):
    """Two hidden layers of ReLUs over the flattened image."""

    classes: int
    width: int = 256

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        hidden = images.reshape(images.shape[0], -1)
        for _ in range(2):
            hidden = nn.relu(nn.Dense(self.width)(hidden))
        return nn.Dense(self.classes)(hidden)


class ResNet20(nn.Module):
    """ResNet-20 for small images, with group norm in place of batch norm.

    Three stages of three blocks, with 16, 32 and 64 channels, and shortcuts without
    parameters: 269,722 parameters for 10 classes of colour images. Group norm because
    the batch statistics of workers with different labels disagree.

    References:
      He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2016, section
      4.2 (shortcut A). Wu, He: Group Normalization, 2018.
    """

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        hidden = nn.relu(_norm()(_conv(16)(images)))
        for channels in (16, 32, 64):
            for _ in range(3):
                hidden = Block(channels)(hidden)
        return nn.Dense(self.classes)(hidden.mean(axis=(1, 2)))


class Block(nn.Module):
    """Two convolutions beside a shortcut; halves the image where channels double."""

    channels: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps [n, h, w, c] to [n, h, w, channels], or half of h and w."""
        grow = self.channels - images.shape[-1]
        stride = 2 if grow else 1
        hidden = nn.relu(_norm()(_conv(self.channels, stride)(images)))
        hidden = _norm()(_conv(self.channels)(hidden))
        shortcut = images[:, ::stride, ::stride]
        shortcut = jnp.pad(shortcut, ((0, 0),) * 3 + ((grow // 2, grow - grow // 2),))
        return nn.relu(hidden + shortcut)


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": Perceptron,
    "resnet20": ResNet20,
}


def _conv(channels: int, stride: int = 1) -> nn.Conv:
    return nn.Conv(
        channels,
        (3, 3),
        strides=stride,
        padding=1,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
    )


def _norm() -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=NORM_GROUPS)
