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
    """CIFAR-10: 50,000 colour images of 32 by 32 to train on, 10,000 to test on.

    Without a file `tensorflow_datasets` has them where it keeps its data, which
    `TFDS_DATA_DIR` can move. It downloads and prepares them the first time, which takes
    TensorFlow; reading them afterwards does not. Images are in the order of the
    authors' archive.

    `prepare` is (images / 255 - mean) / deviation, channel by channel. `augment` is
    `augmentation.pad_crop_flip` on the pixels: what moves in is black, not the mean.

    Args:
      data_file: an .npz file with the arrays train_images and test_images
        [n, 32, 32, 3] in uint8, train_labels and test_labels [n] of integers, in its
        place.

    Raises:
      ValueError: if `tensorflow_datasets` does not have them and cannot get them, or if
        the file is not as above.

    References:
      Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    # Over all pixels of the 50,000 training images, as the whole field has them.
    mean, deviation = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _data("cifar10", 10, mean, deviation, data_file)


def cifar100(data_file: Path | None = None) -> Data:
    """CIFAR-100: as `cifar10`, with 100 classes of 600 images each, the fine labels."""
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
            f"{name} is not where `tensorflow_datasets` keeps its data, and could not "
            f"be prepared there ({type(error).__name__}: {error}). This takes the "
            'network and TensorFlow, once: `pip install -e ".[cifar]"` and try again. '
            f"Or bring the images in a file: `--data-file X.npz`, with {_LAYOUT}."
        ) from error
    return tuple(_stack(source) for source in sources)


def _stack(source):
    # It is shuffled; the number in the id is the place in the archive.
    examples = sorted(source, key=lambda example: example["id"])
    return Split(
        np.stack([example["image"] for example in examples]),
        np.array([example["label"] for example in examples], np.int32),
    )


def _from_file(path, name, classes):
    if not path.is_file():
        raise ValueError(
            f"`data_file` is {str(path)!r}, and there is no such file. Name an .npz "
            f"file with {_LAYOUT}."
        )
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"`data_file` is {str(path)!r}, which is no .npz file. Make one with "
            f"`numpy.savez`, of {_LAYOUT}."
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
            f"empty, but is {images.dtype} {list(images.shape)}. Store the pixels as "
            "they are, 0 to 255, with the channels last."
        )
    labels = _array(path, arrays, f"{split}_labels")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise ValueError(
            f"`{split}_labels` of {str(path)!r} must be integers [{len(images)}], one "
            f"for each of `{split}_images`, but is {labels.dtype} {list(labels.shape)}."
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(
            f"`{split}_labels` of {str(path)!r} holds {wrong[0]}, but the labels of "
            f"{name} are 0 to {classes - 1}. Number them so, or name the data set that "
            "the file holds with `--data`."
        )
    if len(labels) >= 1000 and labels.max() < 10 < classes:
        raise ValueError(
            f"all {len(labels):,} of `{split}_labels` of {str(path)!r} are below 10, "
            f"but those of {name} go up to {classes - 1}. Name the data set that the "
            "file holds, such as `--data cifar10`."
        )
    return Split(images, labels.astype(np.int32))


def _array(path, arrays, array):
    if array not in arrays:
        raise ValueError(
            f"{str(path)!r} has no array `{array}`, but {', '.join(arrays)}. It needs "
            f"{_LAYOUT}."
        )
    try:
        return np.atleast_1d(arrays[array])
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`{array}` of {str(path)!r} cannot be read ({error}). Store it with "
            "`numpy.savez`, as an array of numbers."
        ) from error
