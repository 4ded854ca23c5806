"""A multilayer perceptron."""

import flax.linen as nn
import jax


class Perceptron(nn.Module):
    """Two hidden layers of ReLUs over the flattened image."""

    classes: int
    width: int = 256

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Maps images [n, height, width, channels] to logits [n, classes]."""
        del train
        hidden = images.reshape(images.shape[0], -1)
        for _ in range(2):
            hidden = nn.relu(nn.Dense(self.width)(hidden))
        return nn.Dense(self.classes)(hidden)
