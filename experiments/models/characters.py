"""A small transformer that predicts the next character."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.vit import Attention, Hidden, dense, norm


class Characters(nn.Module):
    """Two causal pre-norm blocks of width 64 with 4 heads.

    It has 79,169 parameters for 65 different characters in windows of 64.

    Attributes:
      classes: the number of different characters.
      width: of a token.
      heads: of the attention.
      blocks: the number of blocks, each of attention and a hidden layer.
    """

    classes: int
    width: int = 64
    heads: int = 4
    blocks: int = 2

    @nn.compact
    def __call__(self, windows: jax.Array, train: bool) -> jax.Array:
        """Maps character codes [n, places] to logits [n, places, classes]."""
        del train
        small = nn.initializers.normal(0.02)
        places = self.param("positions", small, (1, windows.shape[1], self.width))
        tokens = nn.Embed(self.classes, self.width, embedding_init=small)(
            jnp.asarray(windows)
        )
        tokens = tokens + places
        for _ in range(self.blocks):
            tokens = tokens + Attention(self.heads, causal=True)(norm()(tokens))
            tokens = tokens + Hidden()(norm()(tokens))
        return dense(self.classes)(norm()(tokens))
