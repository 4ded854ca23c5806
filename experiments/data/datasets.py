"""The data sets, by name."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from experiments.data.cifar import cifar10, cifar100
from experiments.data.images import Data, Split
from experiments.data.text import text


def digits(data_file: Path | None = None) -> Data:
    """Scikit-learn's handwritten digits: 1,280 images to train on, 517 to test on.

    The images are 8 by 8 and come with scikit-learn, so nothing is downloaded. The
    split is always the same one, and 1,280 shares out evenly over up to 8 workers.
    They are stored with mean 0 and variance 1, and are not augmented.

    Raises:
      ValueError: if there is a file, since there is nothing to read from one.
    """
    from sklearn.datasets import load_digits

    if data_file is not None:
        raise ValueError(
            f"`data_file` is {str(data_file)!r}, but the digits come with scikit-learn "
            "and are read from no file. Leave `--data-file` out, or name a data set "
            "that has one, such as `--data cifar10`."
        )
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8, 1)[order]
    labels = np.asarray(labels, np.int32)[order]
    train, test = slice(1280), slice(1280, None)
    images = (images - images[train].mean()) / images[train].std()
    return Data(
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        classes=10,
        prepare=lambda images: images,
        augment=_nothing,
    )


DATA: dict[str, Callable[[Path | None], Data]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "text": text,
}


def _nothing(key: jax.Array, images: jax.Array) -> jax.Array:
    del key
    return images
