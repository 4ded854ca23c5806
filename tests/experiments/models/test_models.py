"""The sizes of the networks, what they look at, and what training changes in them."""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.networks import MODELS
from experiments.models.resnet import Block, batch_norm, group_norm, resnet20_bn
from experiments.models.vit import VisionTransformer

COLOUR, DIGIT = (32, 32, 3), (8, 8, 1)


def images(count, shape=DIGIT):
    return jax.random.normal(jax.random.key(0), (count, *shape))


def start(network, batch):
    """Its variables, as a dictionary of collections."""

    @jax.jit
    def init(key):
        return network.init(key, batch, train=False)

    return dict(init(jax.random.key(1)))


@functools.cache
def started(model):
    """A network for seven classes of digits, and its variables at the start."""
    network = MODELS[model](7)
    return network, start(network, jnp.zeros((1, *DIGIT)))


def size(network, shape, collection="params"):
    variables = jax.eval_shape(lambda: start(network, jnp.zeros((1, *shape))))
    return sum(leaf.size for leaf in jax.tree.leaves(variables[collection]))


@pytest.mark.parametrize(
    ("model", "shape", "parameters"),
    [
        ("mlp", DIGIT, 65 * 256 + 257 * 256 + 257 * 10),
        ("resnet20_bn", COLOUR, 269_722),
        ("resnet20_gn", COLOUR, 269_722),
        ("vit", COLOUR, 1_210_186),
        ("vit_small", COLOUR, 319_402),
    ],
)
def test_a_network_has_the_size_it_states(model, shape, parameters):
    assert size(MODELS[model](10), shape) == parameters


def test_the_norms_of_resnet20_keep_a_mean_and_a_variance_a_channel():
    channels = 7 * 16 + 6 * 32 + 6 * 64

    assert size(resnet20_bn(10), COLOUR, "batch_stats") == 2 * channels


@pytest.mark.parametrize(
    "model",
    [
        # Only batch norm has statistics, and only it mixes images while it trains.
        pytest.param(name, marks=() if name == "resnet20_bn" else pytest.mark.slow)
        for name in MODELS
        if name != "characters"
    ],
)
def test_evaluation_treats_each_image_alone_and_changes_nothing(model):
    (network, variables), batch = started(model), images(3)
    kept = {name: variables[name] for name in variables if name != "params"}

    @jax.jit
    def evaluate(images):
        return network.apply(variables, images, train=False, mutable=list(kept))

    logits, changed = evaluate(batch)

    assert logits.shape == (3, 7)
    assert logits.dtype == jnp.float32
    assert np.std(logits) > 1e-3
    alone, _ = evaluate(batch[:1].repeat(3, axis=0))
    np.testing.assert_allclose(alone[0], logits[0], rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, dict(changed), kept)


@functools.partial(jax.jit, static_argnums=0)
def trained(network, variables, batch):
    """The batch statistics after one batch of training."""
    _, changed = network.apply(variables, batch, train=True, mutable=["batch_stats"])
    return dict(changed)


def test_training_moves_all_batch_statistics():
    network, variables = started("resnet20_bn")

    moved = trained(network, variables, images(4))

    assert moved.keys() == variables.keys() - {"params"}
    for new, old in zip(
        jax.tree.leaves(moved["batch_stats"]),
        jax.tree.leaves(variables["batch_stats"]),
        strict=True,
    ):
        assert (np.asarray(new) != np.asarray(old)).any()


def test_batch_statistics_keep_nine_tenths_of_the_old():
    block, batch = Block(4, batch_norm), images(6, (8, 8, 4))
    variables = start(block, batch)
    convolution = nn.Conv(4, (3, 3), padding=1, use_bias=False)
    params = {"params": variables["params"]["Conv_0"]}
    hidden = np.asarray(convolution.apply(params, batch), np.float64)
    mean, variance = hidden.mean(axis=(0, 1, 2)), hidden.var(axis=(0, 1, 2))

    once = trained(block, variables, batch)
    twice = trained(block, variables | once, batch)

    for stats, new in ((once, 0.1), (twice, 0.19)):
        found = stats["batch_stats"]["BatchNorm_0"]
        np.testing.assert_allclose(found["mean"], new * mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["var"], 1 - new + new * variance, rtol=1e-4)


def test_batch_statistics_are_of_the_workers_own_batch():
    block, batches = Block(4, batch_norm), images(6, (3, 8, 8, 4))
    variables = start(block, batches[0])

    def own(batch):
        return trained(block, variables, batch)

    together = jax.vmap(own, axis_name="workers")(batches)

    for worker, batch in enumerate(batches):
        jax.tree.map(
            lambda ours, alone, worker=worker: np.testing.assert_allclose(
                ours[worker], alone, rtol=1e-4, atol=1e-6
            ),
            together,
            own(batch),
        )


def test_the_group_norm_of_an_image_does_not_depend_on_its_batch():
    block, batch = Block(16, group_norm), images(6, (8, 8, 16))
    variables = start(block, batch)

    assert variables.keys() == {"params"}
    for train in (False, True):
        apply = jax.jit(functools.partial(block.apply, variables, train=train))
        whole, half = (np.asarray(apply(part)) for part in (batch, batch[:3]))
        np.testing.assert_allclose(half, whole[:3], rtol=1e-5, atol=1e-5)


def layer_norm(x, params):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * params["scale"] + params["bias"]


def dense(x, params):
    return x @ params["kernel"] + params.get("bias", 0)


def attention(tokens, params, heads):
    queries, keys, values = np.split(dense(tokens, params["Dense_0"]), 3, axis=-1)
    size = tokens.shape[-1] // heads
    mixed = []
    for start in range(0, tokens.shape[-1], size):
        q, k, v = (x[:, start : start + size] for x in (queries, keys, values))
        scores = np.exp(q @ k.T / math.sqrt(size))
        mixed.append(scores / scores.sum(axis=-1, keepdims=True) @ v)
    return dense(np.concatenate(mixed, axis=-1), params["Dense_1"])


def hidden(tokens, params):
    raw = dense(tokens, params["Dense_0"])
    gelu = raw * (1 + np.vectorize(math.erf)(raw / math.sqrt(2))) / 2
    return dense(gelu, params["Dense_1"])


def transformer(params, image, heads, weights, size=4):
    """One image's logits; each branch counts with its weight."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    image = np.asarray(image, np.float64)
    corners = itertools.product(*(range(0, side, size) for side in image.shape[:2]))
    patches = [image[y : y + size, x : x + size].ravel() for y, x in corners]
    tokens = np.concatenate(
        [params["class_token"][0], dense(np.stack(patches), params["Dense_0"])]
    )
    tokens = tokens + params["positions"][0]
    for branch, weight in enumerate(weights):
        normal = layer_norm(tokens, params[f"LayerNorm_{branch}"])
        block, second = divmod(branch, 2)
        if second:
            added = hidden(normal, params[f"Hidden_{block}"])
        else:
            added = attention(normal, params[f"Attention_{block}"], heads)
        tokens = tokens + weight * added
    last = layer_norm(tokens[0], params[f"LayerNorm_{len(weights)}"])
    return dense(last, params["Dense_1"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("shape", "patch"),
    [
        ((8, 12, 3), 4),
        pytest.param(DIGIT, 4, marks=pytest.mark.slow),
        pytest.param((16, 8, 3), 8, marks=pytest.mark.slow),
    ],
)
def test_a_vision_transformer_is_the_one_in_numpy(shape, patch):
    network = VisionTransformer(3, 32, 4, depth_rate=0.1, blocks=2, patch=patch)
    batch = images(2, shape)
    variables = start(network, batch)

    ours = jax.jit(lambda: network.apply(variables, batch, train=False))()

    for logits, image in zip(np.asarray(ours), batch, strict=True):
        expected = transformer(variables["params"], image, 4, [1] * 4, patch)
        np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_vision_transformer_starts_xavier_normal():
    params = started("vit")[1]["params"]
    layers = [params[f"{layer}_0"] for layer in ("Attention", "Hidden", "Dense")]

    for kernel in (leaf for leaf in jax.tree.leaves(layers) if leaf.ndim == 2):
        spread = math.sqrt(2 / sum(kernel.shape))
        assert np.std(kernel) == pytest.approx(spread, rel=0.05)
    assert np.std(params["positions"]) == pytest.approx(1, rel=0.1)
    assert np.std(params["class_token"]) == pytest.approx(1, rel=0.3)


@pytest.mark.slow
def test_stochastic_depth_leaves_out_branches_of_single_images():
    rate, count = 0.1, 4000
    network = VisionTransformer(3, width=8, heads=2, depth_rate=rate, blocks=1)
    batch = jnp.repeat(images(1), count, axis=0)
    variables = start(network, batch[:1])

    @jax.jit
    def train(key):
        return network.apply(variables, batch, train=True, rngs={"dropout": key})

    logits = np.asarray(train(jax.random.key(2)))

    found = 0
    for branches in itertools.product((False, True), repeat=2):
        weights = [kept / (1 - rate) for kept in branches]
        expected = transformer(variables["params"], batch[0], 2, weights)
        like = np.isclose(logits, expected, rtol=1e-3, atol=1e-4).all(axis=-1).sum()
        share = math.prod(1 - rate if kept else rate for kept in branches)
        assert abs(like - share * count) < 5 * math.sqrt(count * share * (1 - share))
        found += like
    assert found == count
    assert (logits != np.asarray(train(jax.random.key(3)))).any()


@pytest.mark.slow
def test_only_the_large_vision_transformer_draws():
    assert MODELS["vit"](10) == VisionTransformer(10, 192, 12, depth_rate=0.1)
    (network, variables), batch = started("vit_small"), images(2)

    @jax.jit
    def both():
        return [network.apply(variables, batch, train=train) for train in (True, False)]

    np.testing.assert_array_equal(*both())


def test_patches_that_do_not_divide_an_image_are_an_error():
    with pytest.raises(ValueError, match=r"multiples of 4, .* got 8 by 10"):
        start(MODELS["vit"](3), images(1, (8, 10, 1)))
