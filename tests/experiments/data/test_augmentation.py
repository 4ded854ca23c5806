"""Random crops and flips: their variants, frequencies and shapes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.augmentation import pad_crop_flip

PAD = 4
# No two pixels alike, and not square: what came out says how it was made.
IMAGE = np.arange(1, 31, dtype=np.uint8).reshape(5, 6, 1)

jitted = jax.jit(pad_crop_flip, static_argnames="pad")


def outcomes(image, pad):
    """All variants of an image, in NumPy: crops first, then their mirrors."""
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, image.shape[2]), image.dtype)
    padded[pad : pad + height, pad : pad + width] = image
    crops = [
        padded[top : top + height, left : left + width]
        for top, left in itertools.product(range(2 * pad + 1), repeat=2)
    ]
    return np.stack(crops + [crop[:, ::-1] for crop in crops])


def test_every_crop_and_its_mirror_are_drawn_and_equally_often():
    possible = outcomes(IMAGE, PAD)
    count = 100 * len(possible)

    drawn = jitted(jax.random.key(0), jnp.asarray([IMAGE] * count), PAD)

    flat = np.asarray(drawn).reshape(count, -1)
    places = {outcome.tobytes(): place for place, outcome in enumerate(possible)}
    assert len(places) == 2 * (2 * PAD + 1) ** 2
    frequencies = np.bincount([places[row.tobytes()] for row in flat])
    assert len(frequencies) == len(possible)
    # 162 counts of mean 100: five standard deviations, of which one comes by chance
    # in ten thousand such tests.
    assert np.abs(frequencies - 100).max() < 5 * np.sqrt(100)


def test_without_padding_images_are_mirrored_or_not():
    drawn = np.asarray(jitted(jax.random.key(0), jnp.asarray([IMAGE] * 50), 0))

    mirrored = (drawn == IMAGE[:, ::-1]).all(axis=(1, 2, 3))
    assert (drawn[~mirrored] == IMAGE).all()
    assert 0 < mirrored.sum() < 50


def test_another_key_is_another_draw_and_the_same_key_the_same():
    images = jnp.asarray([IMAGE] * 20)
    first, again, other = (
        np.asarray(jitted(jax.random.key(seed), images)) for seed in (0, 0, 1)
    )

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_batched_scanned_and_compiled_it_is_the_same_with_all_channels(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    pixels = np.random.default_rng(0).integers(256, size=(3, 4, 8, 8, 3))
    images = jnp.asarray(pixels, dtype)

    @jax.jit
    def three_times(keys, images):
        one_by_one = [pad_crop_flip(*x) for x in zip(keys, images, strict=True)]
        batched = jax.vmap(pad_crop_flip)(keys, images)
        _, scanned = jax.lax.scan(
            lambda carry, x: (carry, pad_crop_flip(*x)), None, (keys, images)
        )
        return jnp.stack(one_by_one), batched, scanned

    one_by_one, batched, scanned = map(np.asarray, three_times(keys, images))

    assert one_by_one.dtype == batched.dtype == scanned.dtype == dtype
    np.testing.assert_array_equal(batched, one_by_one)
    np.testing.assert_array_equal(scanned, one_by_one)
    for before, after in zip(np.asarray(images), one_by_one, strict=True):
        for image, result in zip(before, after, strict=True):
            assert (outcomes(image, PAD) == result).all(axis=(1, 2, 3)).any()
