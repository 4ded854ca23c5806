"""What a data set of images is, and what a network is shown of it."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

Images: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]


class Split(NamedTuple):
    """Images [n, height, width, channels] and their labels [n] in int32.

    Of text, windows [n, places], and for each character the next one.
    """

    images: Images
    labels: NDArray[np.int32]


class Data(NamedTuple):
    """A data set for classification; the functions are for inside a compiled program.

    Attributes:
      train: what to train on.
      test: what to judge on.
      classes: labels count from 0 to one less.
      prepare: maps images as they are stored to those of a network, in float32.
      augment: maps a key and images to other images of the same dtype and shape, a
        draw an image. It comes before `prepare`, and only in training.
    """

    train: Split
    test: Split
    classes: int
    prepare: Callable[[jax.Array], jax.Array]
    augment: Callable[[jax.Array, jax.Array], jax.Array]
