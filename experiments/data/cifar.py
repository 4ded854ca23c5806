"""CIFAR-10 and CIFAR-100, from `tensorflow_datasets` or from a file."""

import importlib.util
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.data.augmentation import pad_crop_flip
from experiments.data.images import Data, Split

_SHAPE = (32, 32, 3)
_LAYOUT = (
    "train_images [n, 32, 32, 3] in uint8, their labels train_labels [n], and likewise "
    "test_images and test_labels"
)


def cifar10(data_file: Path | None = None) -> Data:
    """CIFAR-10: 50,000 training and 10,000 test images, in colour, 32 by 32 pixels.

    By default the images come from `tensorflow_datasets`, whose directory
    `TFDS_DATA_DIR` can change. It downloads and prepares them the first time, which
    needs TensorFlow; later reads do not. Images are in the order of the authors'
    archive.

    `prepare` is (images / 255 - mean) / deviation, channel by channel. `augment` is
    `augmentation.pad_crop_flip` on the pixels, so the padding is black, not the mean.

    Args:
      data_file: an .npz file to read instead. It has the arrays train_images and
        test_images [n, 32, 32, 3] in uint8, and train_labels and test_labels [n] of
        integers.

    Raises:
      ValueError: if `tensorflow_datasets` neither has the images nor can prepare them,
        or the file is not as described.

    References:
      Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    # Over all pixels of the 50,000 training images; the field uses these figures.
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _data("cifar10", 10, mean, deviation, data_file)


def cifar100(data_file: Path | None = None) -> Data:
    """CIFAR-100: as `cifar10`, with 100 classes of 600 images (the fine labels)."""
    mean, deviation = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _data("cifar100", 100, mean, deviation, data_file)


def _data(name, classes, mean, deviation, data_file):
    if data_file is None:
        train, test = _prepared(name)
    else:
        train, test = _from_file(data_file, name, classes)

    def prepare(images):
        pixels = jnp.asarray(images, jnp.float32) / 255
        return (pixels - np.array(mean, np.float32)) / np.array(deviation, np.float32)

    return Data(train, test, classes, prepare, pad_crop_flip)


def _prepared(name):
    try:
        import tensorflow_datasets as tfds

        sources = tfds.data_source(
            name,
            split=["train", "test"],
            builder_kwargs={"file_format": "array_record"},
            # Without TensorFlow a download would fail once it is complete.
            download=importlib.util.find_spec("tensorflow") is not None,
        )
    except Exception as error:  # Of the network, the disk, TensorFlow or a bare assert.
        raise ValueError(
            f"{name} is not in the data directory of `tensorflow_datasets`, and could "
            f"not be prepared there ({type(error).__name__}: {error}). Preparing it "
            'once needs the network and TensorFlow: `pip install -e ".[cifar]"`, then '
            f"run this again. Or give the images in a file, `--data-file X.npz`, with "
            f"{_LAYOUT}."
        ) from error
    return tuple(_stack(source) for source in sources)


def _stack(source):
    # The source is shuffled; ids are in the order of the authors' archive.
    examples = sorted(source, key=lambda example: example["id"])
    return Split(
        np.stack([example["image"] for example in examples]),
        np.array([example["label"] for example in examples], np.int32),
    )


def _from_file(path, name, classes):
    if not path.is_file():
        raise ValueError(
            f"`data_file` must name a file, got {str(path)!r}, which does not exist. "
            f"Name an .npz file with {_LAYOUT}."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"`data_file` must be an .npz file, got {str(path)!r}, which is none. Make "
            f"one with `numpy.savez`, with {_LAYOUT}."
        )
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(
            _split(path, arrays, split, name, classes) for split in ("train", "test")
        )


def _split(path, arrays, split, name, classes):
    images = _array(path, arrays, f"{split}_images")
    fits = images.dtype == np.uint8 and images.shape[1:] == _SHAPE
    if not fits or not len(images):
        raise ValueError(
            f"`{split}_images` of {str(path)!r} must be uint8 [n, 32, 32, 3] and not "
            f"empty, got {images.dtype} {list(images.shape)}. Store pixels from 0 to "
            "255, with the channels last."
        )
    labels = _array(path, arrays, f"{split}_labels")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"`{split}_labels` of {str(path)!r} must be integers [{len(images)}], one "
            f"for each of `{split}_images`, got {labels.dtype} {list(labels.shape)}."
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(
            f"`{split}_labels` of {str(path)!r} must be in 0 to {classes - 1} for "
            f"{name}, got {wrong[0]}. Renumber the labels, or name the file's data set "
            "with `--data`."
        )
    if len(labels) >= 1000 and labels.max() < 10 < classes:
        raise ValueError(
            f"`{split}_labels` of {str(path)!r} must go up to {classes - 1} for "
            f"{name}, but all {len(labels):,} of them are below 10. Name the file's "
            "data set, such as `--data cifar10`."
        )
    return Split(images, labels.astype(np.int32))


def _array(path, arrays, array):
    if array not in arrays:
        raise ValueError(
            f"{str(path)!r} must have an array `{array}`, got {', '.join(arrays)}. It "
            f"needs {_LAYOUT}."
        )
    try:
        return np.atleast_1d(arrays[array])
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`{array}` of {str(path)!r} cannot be read ({error}). Store an array of "
            "numbers with `numpy.savez`."
        ) from error
