"""The data sets by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.data.augmentation import no_augmentation
from experiments.data.cifar import cifar10, cifar100
from experiments.data.images import Data, Split
from experiments.data.text import TEXTS


def digits(data_file: Path | None = None) -> Data:
    """Scikit-learn's handwritten digits: 1,280 training and 517 test images.

    The images have 8 by 8 pixels. They come with scikit-learn, so nothing is
    downloaded. The split is fixed; 2, 4 or 8 workers divide 1,280 images evenly. Pixels
    are scaled to mean 0 and variance 1, and are not augmented.

    Raises:
      ValueError: if a file is given, since digits are not read from one.
    """
    from sklearn.datasets import load_digits

    if data_file is not None:
        raise ValueError(
            "`data_file` must be left out for the digits, which come with "
            f"scikit-learn, got {str(data_file)!r}. Leave `--data-file` out, or name a "
            "data set that is read from files, such as `--data cifar10`."
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
        augment=no_augmentation,
    )


IMAGES: dict[str, Callable[[Path | None], Data]] = {
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
}

DATA = (*IMAGES, *TEXTS)


def load(name: str, data_file: Path | None, window: int) -> Data:
    """Loads a data set by its name; a text is cut into windows of this many tokens."""
    if name in TEXTS:
        return TEXTS[name](data_file, window)
    return IMAGES[name](data_file)
