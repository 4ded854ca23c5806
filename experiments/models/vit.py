"""The vision transformer for small images."""

import flax.linen as nn
import jax
import jax.numpy as jnp

_EPSILON = 1e-5  # Added to the variances in layer norms.


def vit(classes: int) -> "VisionTransformer":
    """Four blocks of width 192 with 12 heads of 16, and stochastic depth of 0.1.

    It has 1,210,186 parameters for 10 classes of colour images of 32 by 32.
    """
    return VisionTransformer(classes, width=192, heads=12, depth_rate=0.1)


def vit_small(classes: int) -> "VisionTransformer":
    """Four blocks of width 96 with 6 heads of 16 and patches of 8; ours, for CPUs.

    It has no stochastic depth, and 319,402 parameters for 10 classes of colour images
    of 32 by 32.
    """
    return VisionTransformer(classes, width=96, heads=6, depth_rate=0.0, patch=8)


class VisionTransformer(nn.Module):
    """Square patches, a class token, and pre-norm blocks.

    The network follows Lee et al.'s ViT for small images, without their shifted patch
    tokenisation and locality attention. Positions are learned. Hidden layers are twice
    as wide as tokens. Linear layers start Xavier-normal, the class token and positions
    standard normal. In training each branch is dropped with probability `depth_rate`,
    for each image by itself; a kept branch is scaled up, so that the mean is the same.

    Attributes:
      classes: the number of logits.
      width: of a token.
      heads: of the attention; it divides the width.
      depth_rate: the probability to drop a branch, in [0, 1).
      blocks: the number of blocks, each of attention and a hidden layer.
      patch: the height and width of a patch in pixels. It divides those of the image:
        patches of 4 make 64 tokens of 32 by 32 pixels, and 4 of 8 by 8.

    References:
      Dosovitskiy et al.: An Image is Worth 16x16 Words, 2021. Lee, Lee, Song: Vision
      Transformer for Small-Size Datasets, 2021. Huang et al.: Deep Networks with
      Stochastic Depth, 2016.
    """

    classes: int
    width: int
    heads: int
    depth_rate: float
    blocks: int = 4
    patch: int = 4

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes].

        Raises:
          ValueError: if patches do not divide the images evenly.
        """
        patches = _patches(images, self.patch)
        count, places, _ = patches.shape
        normal = nn.initializers.normal(1.0)
        first = self.param("class_token", normal, (1, 1, self.width))
        positions = self.param("positions", normal, (1, places + 1, self.width))
        tokens = jnp.concatenate(
            [jnp.repeat(first, count, axis=0), dense(self.width)(patches)], axis=1
        )
        tokens = tokens + positions
        for _ in range(self.blocks):
            tokens = tokens + self._stochastic(Attention(self.heads), tokens, train)
            tokens = tokens + self._stochastic(Hidden(), tokens, train)
        return dense(self.classes)(norm()(tokens[:, 0]))

    def _stochastic(self, branch, tokens, train):
        branched = branch(norm()(tokens))
        # One draw decides for all tokens and channels of an image.
        drop = nn.Dropout(self.depth_rate, broadcast_dims=(1, 2))
        return drop(branched, deterministic=not train)


class Attention(nn.Module):
    """Attention with several heads; causal attention looks at earlier tokens only."""

    heads: int
    causal: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [n, places, width] to tokens of the same shape."""
        count, places, width = tokens.shape
        joint = dense(3 * width, use_bias=False)(tokens)
        joint = joint.reshape(count, places, 3, self.heads, width // self.heads)
        query, key, value = jnp.unstack(joint, axis=2)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)
        return dense(width)(mixed.reshape(tokens.shape))


class Hidden(nn.Module):
    """A hidden layer of GELUs, twice as wide as a token, for each token by itself."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [n, places, width] to tokens of the same shape."""
        width = tokens.shape[-1]
        hidden = nn.gelu(dense(2 * width)(tokens), approximate=False)
        return dense(width)(hidden)


def _patches(images: jax.Array, size: int) -> jax.Array:
    n, height, width, channels = images.shape
    if height % size or width % size:
        raise ValueError(
            f"the height and width of images must be multiples of {size}, the size of "
            f"a patch, got {height} by {width}. Use another model, or pad the images."
        )
    cut = images.reshape(n, height // size, size, width // size, size, channels)
    return cut.swapaxes(2, 3).reshape(n, -1, size * size * channels)


def dense(width: int, use_bias: bool = True) -> nn.Dense:
    """A linear layer that starts Xavier-normal."""
    return nn.Dense(
        width, use_bias=use_bias, kernel_init=nn.initializers.xavier_normal()
    )


def norm() -> nn.LayerNorm:
    """The layer norm of all transformers."""
    return nn.LayerNorm(epsilon=_EPSILON)
