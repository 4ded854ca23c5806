"""Random crops and flips of images, computed inside the compiled program."""

from functools import partial

import jax
import jax.numpy as jnp


def pad_crop_flip(key: jax.Array, images: jax.Array, pad: int = 4) -> jax.Array:
    """Crops every image at a random offset after padding, and mirrors half of them.

    Each image is padded with zeros on its four sides. It is cropped to its old size at
    an offset drawn uniformly from the (2 pad + 1)^2 possible ones. With probability 1/2
    it is mirrored left to right. Images are drawn independently.

    Args:
      key: of the random draws.
      images: [n, height, width, channels], of any dtype.
      pad: pixels on each side, at least 0; with 0, images are only mirrored.

    Returns:
      Images of the same shape and dtype.

    References:
      He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2016, section
      4.2 (32 by 32 crops of images padded by 4, and their mirror images).
    """
    crop, flip = jax.random.split(key)
    count = images.shape[0]
    offsets = jax.random.randint(crop, (count, 2), 0, 2 * pad + 1)
    flipped = jax.random.bernoulli(flip, 0.5, (count,))
    return jax.vmap(partial(_one, pad=pad))(images, offsets, flipped)


def no_augmentation(key: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the images unchanged."""
    del key
    return images


def _one(image, offset, flipped, pad):
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    cropped = jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)
    return jnp.where(flipped, cropped[:, ::-1], cropped)
