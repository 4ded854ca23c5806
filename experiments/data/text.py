"""Text from a file, character by character."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from experiments.data.augmentation import no_augmentation
from experiments.data.images import Data, Split

WINDOW = 64  # Characters in a sample.
_TEST = 0.1  # The share of the file, at its end, that models are evaluated on.


def text(data_file: Path | None = None) -> Data:
    """Windows of 64 characters; the label of each character is the next one.

    Models are evaluated on the last tenth of the file. No text comes with the project.
    Any file in UTF-8 works, such as the plays of Shakespeare of Karpathy's char-rnn.

    Raises:
      ValueError: if no file is named, or the file cannot be read as UTF-8, is too short
        for a window in each split, or has more than 256 different characters.
    """
    if data_file is None:
        raise ValueError(
            "`data_file` must name a text. Name any file in UTF-8: `--text-file X.txt`."
        )
    try:
        characters = data_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"is not in UTF-8 ({error})"
        if isinstance(error, OSError):
            problem = f"cannot be read ({error.strerror})"
        raise ValueError(
            f"`data_file` is {str(data_file)!r}, which {problem}. Name any file in "
            "UTF-8: `--text-file X.txt`."
        ) from None
    alphabet, codes = np.unique(list(characters), return_inverse=True)
    cut = round(len(codes) * (1 - _TEST))
    if min(cut, len(codes) - cut) <= WINDOW or len(alphabet) > 256:
        raise ValueError(
            f"`data_file` must hold at least {round(WINDOW / _TEST) + 10} characters "
            f"of at most 256 kinds, got {len(codes):,} of {len(alphabet)} kinds. Use "
            "another text."
        )
    return Data(
        train=_windows(codes[:cut]),
        test=_windows(codes[cut:]),
        classes=len(alphabet),
        prepare=lambda windows: jnp.asarray(windows, jnp.int32),
        augment=no_augmentation,
    )


def _windows(codes: np.ndarray) -> Split:
    count = (len(codes) - 1) // WINDOW
    seen, next_ = codes[: count * WINDOW], codes[1 : count * WINDOW + 1]
    return Split(
        seen.reshape(count, WINDOW).astype(np.uint8),
        next_.reshape(count, WINDOW).astype(np.int32),
    )
