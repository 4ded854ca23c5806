"""The type of a data set: its splits, and how a network's inputs are made from them."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

Images: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int32] | NDArray[np.uint8] | NDArray[np.uint16]


class Split(NamedTuple):
    """Samples and labels.

    Attributes:
      images: [n, height, width, channels]; for text, windows of tokens [n, places].
      labels: whole numbers [n]; for text, the token after each one, [n, places].
    """

    images: Images
    labels: Labels


class Data(NamedTuple):
    """A data set for classification; its functions run inside the compiled program.

    Attributes:
      train: the training samples.
      test: the samples that models are evaluated on.
      classes: the number of classes; labels are from 0 to `classes - 1`.
      prepare: maps stored images to the network's input, in float32; text, in int32.
      augment: maps a key and stored images to random variations of the same dtype and
        shape, independent for each image. It is applied before `prepare`, and only in
        training.
      decode: maps tokens to text; None for images.
      on_host: whether each batch is read on the host, since the samples need not fit
        into memory.
    """

    train: Split
    test: Split
    classes: int
    prepare: Callable[[jax.Array], jax.Array]
    augment: Callable[[jax.Array, jax.Array], jax.Array]
    decode: Callable[[NDArray], str] | None = None
    on_host: bool = False
