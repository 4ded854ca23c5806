"""The sizes of the networks, and that they look at one image at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import MODELS, Perceptron, ResNet20


def parameters(model, shape):
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_resnet20_has_the_size_of_the_paper():
    assert parameters(ResNet20(10), (32, 32, 3)) == 269_722


def test_the_perceptron_has_two_hidden_layers():
    layers = (64 * 256 + 256) + (256 * 256 + 256) + (256 * 10 + 10)

    assert parameters(Perceptron(10), (8, 8, 1)) == layers


@pytest.mark.parametrize("model", MODELS)
def test_the_logits_of_an_image_do_not_depend_on_the_batch(model):
    network = MODELS[model](7)
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    params = jax.jit(network.init)(jax.random.key(1), images)
    apply = jax.jit(network.apply)

    logits = apply(params, images)

    assert logits.shape == (3, 7)
    assert np.std(logits) > 1e-3
    alone = apply(params, images[:1].repeat(3, axis=0))
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-4, atol=1e-5)
