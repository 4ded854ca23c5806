"""A decoder-only transformer in Flax nnx, of a million to billions of parameters."""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from gmc_jax.utils import checks

_START = 0.02  # The standard deviation of weights at the start, as in GPT-2.
_ROTARY_BASE = 10_000.0  # Of the wavelengths, as in RoFormer.


@dataclass(frozen=True)
class Gpt:
    """The size and the parts of a transformer.

    The defaults have 0.8 million parameters beside the embedding. 124 million, as
    GPT-2 small: 12 blocks, width 768, 12 heads. 1.3 billion, as GPT-3 XL: 24 blocks,
    width 2048, 16 heads.
    """

    blocks: int = 4
    """The number of blocks, each of attention and a hidden layer."""
    width: int = 128
    """The entries of a token."""
    heads: int = 4
    """The heads of the attention; each has width / heads entries, an even number."""
    positions: Literal["rotary", "learned"] = "rotary"
    """How places enter: rotary (queries and keys are turned), or learned vectors."""
    norm: Literal["rms", "layer"] = "rms"
    """The norm before each branch: rms, or layer, which subtracts the mean too."""
    activations: Literal["float32", "bfloat16"] = "float32"
    """The dtype of activations; parameters, norms and logits are float32."""

    def __post_init__(self):
        """Refuses sizes that make no network."""
        checks.positive_int(blocks=self.blocks, width=self.width, heads=self.heads)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"`width` must be a multiple of twice `heads`, {2 * self.heads}, got "
                f"{self.width}. Each head turns pairs of entries."
            )

    def network(self, tokens: int, window: int) -> nn.Module:
        """Makes the network for a number of different tokens and places.

        It is called as a Flax linen module is, like the other networks.
        """
        return nnx.bridge.to_linen(Transformer, self, tokens, window)


class Transformer(nnx.Module):
    """Predicts the next token at each place of a window, from those up to it.

    The network is GPT-2's: pre-norm blocks, hidden layers of GELUs four times as wide
    as a token, and logits through the embedding of tokens. Layers have no biases. What
    adds to the residual stream starts smaller by sqrt(2 blocks).

    References:
      Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; Su et
      al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; Zhang
      and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    def __init__(self, size: Gpt, tokens: int, window: int, *, rngs: nnx.Rngs):
        """Draws the parameters.

        Args:
          size: the size and the parts.
          tokens: the number of different tokens.
          window: the most places that the network reads.
          rngs: of the parameters.
        """
        small = nnx.initializers.normal(_START)
        self.embedding = nnx.Embed(tokens, size.width, embedding_init=small, rngs=rngs)
        self.learned = size.positions == "learned"
        if self.learned:
            self.places = nnx.Param(small(rngs.params(), (window, size.width)))
        self.blocks = nnx.List([_Block(size, rngs) for _ in range(size.blocks)])
        self.norm = _norm(size, rngs)
        self.dtype = jnp.dtype(size.activations)

    def __call__(self, windows: jax.Array, train: bool = False) -> jax.Array:
        """Maps tokens [n, places] to logits in float32, [n, places, tokens]."""
        del train
        stream = self.embedding(windows)
        if self.learned:
            stream = stream + self.places[: windows.shape[1]]
        stream = stream.astype(self.dtype)
        for block in self.blocks:
            stream = block(stream)
        return self.embedding.attend(self.norm(stream).astype(jnp.float32))


class _Block(nnx.Module):
    def __init__(self, size: Gpt, rngs: nnx.Rngs):
        def linear(inputs: int, outputs: int, start: float = _START) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                use_bias=False,
                dtype=jnp.dtype(size.activations),
                kernel_init=nnx.initializers.normal(start),
                rngs=rngs,
            )

        width, ending = size.width, _START / (2 * size.blocks) ** 0.5
        self.before_attention = _norm(size, rngs)
        self.queries = linear(width, width)
        self.keys = linear(width, width)
        self.values = linear(width, width)
        self.mix = linear(width, width, ending)
        self.before_hidden = _norm(size, rngs)
        self.widen = linear(width, 4 * width)
        self.narrow = linear(4 * width, width, ending)
        self.heads, self.rotary = size.heads, size.positions == "rotary"

    def __call__(self, stream: jax.Array) -> jax.Array:
        seen = self.before_attention(stream)
        query, key, value = (
            layer(seen).reshape(*seen.shape[:-1], self.heads, -1)
            for layer in (self.queries, self.keys, self.values)
        )
        if self.rotary:
            query, key = _turned(query), _turned(key)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        stream = stream + self.mix(mixed.reshape(stream.shape))
        return stream + self.narrow(jax.nn.gelu(self.widen(self.before_hidden(stream))))


def split_over_model(path: tuple[str, ...], leaf: jax.Array) -> PartitionSpec:
    """How a parameter is split over the mesh axis "model" (Megatron-LM's scheme).

    Queries, keys, values and the widening are split by their outputs, what follows them
    by its inputs. So a block adds over devices twice. The embedding is split by width.
    Norms are not split.

    References:
      Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models
      Using Model Parallelism", 2019.
    """
    if leaf.ndim < 2:
        return PartitionSpec()
    rows = not {"mix", "narrow"}.isdisjoint(path)
    return PartitionSpec("model", None) if rows else PartitionSpec(None, "model")


def _norm(size: Gpt, rngs: nnx.Rngs) -> nnx.Module:
    kind = {"rms": nnx.RMSNorm, "layer": nnx.LayerNorm}[size.norm]
    return kind(size.width, dtype=jnp.float32, rngs=rngs)


def _turned(heads: jax.Array) -> jax.Array:
    """Turns pairs of entries by angles that grow with the place.

    Args:
      heads: [..., places, heads, entries].
    """
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    wavelengths = _ROTARY_BASE ** jnp.linspace(0, 1, first.shape[-1], endpoint=False)
    angles = jnp.arange(heads.shape[-3])[:, None, None] / wavelengths
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(heads.dtype)
