"""Text, character by character, from a file."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.images import Data, Split

WINDOW = 64  # Characters that a network sees at once.
_TEST = 0.1  # The share at the end of the file that is judged on.


def text(data_file: Path | None = None) -> Data:
    """Windows of 64 characters; each one's label is the character that follows it.

    The last tenth of the file is judged on. No text comes with the project; any file in
    UTF-8 will do, such as the one of Karpathy's char-rnn, some plays of Shakespeare.

    Raises:
      ValueError: if no file is named, if it cannot be read as UTF-8, or holds less than
        a window for each split, or more than 256 different characters.
    """
    if data_file is None:
        raise ValueError(
            "`data_file` names no text. Name any file in UTF-8: `--text-file X.txt`."
        )
    try:
        characters = data_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"holds no UTF-8 ({error})"
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
            f"`data_file` holds {len(codes):,} characters, {len(alphabet)} different "
            f"ones, but must hold at least {round(WINDOW / _TEST) + 10}, of at most "
            "256 kinds. Use another text."
        )
    return Data(
        train=_windows(codes[:cut]),
        test=_windows(codes[cut:]),
        classes=len(alphabet),
        prepare=lambda windows: jnp.asarray(windows, jnp.int32),
        augment=_nothing,
    )


def _windows(codes: np.ndarray) -> Split:
    count = (len(codes) - 1) // WINDOW
    seen, next_ = codes[: count * WINDOW], codes[1 : count * WINDOW + 1]
    return Split(
        seen.reshape(count, WINDOW).astype(np.uint8),
        next_.reshape(count, WINDOW).astype(np.int32),
    )


def _nothing(key: jax.Array, windows: jax.Array) -> jax.Array:
    del key
    return windows
