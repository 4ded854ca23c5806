"""Text from a file: windows of characters, of bytes, or of a tokenizer's tokens."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from experiments.data import tokens
from experiments.data.augmentation import no_augmentation
from experiments.data.images import Data, Split

WINDOW = 64  # Tokens in a sample.
_TEST = 0.1  # The share of the file, at its end, that models are evaluated on.


def text(data_file: Path | None = None, window: int = WINDOW) -> Data:
    """Windows of characters; the label of each character is the next one.

    Models are evaluated on the last tenth of the file. No text comes with the project.
    Any file in UTF-8 works, such as the plays of Shakespeare of Karpathy's char-rnn.

    Raises:
      ValueError: if no file is named, or the file cannot be read as UTF-8, is too short
        for a window in each split, or has more than 256 different characters.
    """
    alphabet, codes = np.unique(list(tokens.read(data_file)), return_inverse=True)
    if len(alphabet) > 256:
        raise ValueError(
            "`data_file` must hold at most 256 different characters, got "
            f"{len(alphabet)}. Use another text, or `--data bytes`."
        )
    return _data(
        codes.astype(np.uint8),
        len(alphabet),
        window,
        lambda codes: "".join(alphabet[codes]),
    )


def utf8(data_file: Path | None = None, window: int = WINDOW) -> Data:
    """Windows of the bytes of UTF-8, of which any text has at most 256.

    Raises:
      ValueError: if no file is named, or the file cannot be read as UTF-8, or is too
        short for a window in each split.
    """
    codes = np.frombuffer(tokens.read(data_file).encode(), np.uint8)
    return _data(
        codes, 256, window, lambda codes: codes.tobytes().decode("utf-8", "replace")
    )


def token_file(data_file: Path | None = None, window: int = WINDOW) -> Data:
    """Windows of the tokens in a file that `python -m experiments tokens` wrote.

    The file is mapped into memory, and batches are read from it on the host.

    Raises:
      ValueError: if no file is named, or the file or its tokenizer cannot be read, or
        it is too short for a window in each split.
    """
    codes, tokenizer = tokens.load(data_file)
    data = _data(
        codes,
        tokenizer.get_vocab_size(),
        window,
        lambda codes: tokenizer.decode(codes.tolist()),
    )
    return data._replace(on_host=True)


TEXTS: dict[str, Callable[[Path | None, int], Data]] = {
    "text": text,
    "bytes": utf8,
    "tokens": token_file,
}
"""What a text is divided into: characters, bytes, or the tokens of a tokenizer."""


def _data(
    codes: NDArray, classes: int, window: int, decode: Callable[[NDArray], str]
) -> Data:
    cut = round(len(codes) * (1 - _TEST))
    if min(cut, len(codes) - cut) <= window:
        raise ValueError(
            f"`data_file` must hold at least {round(window / _TEST) + 10} tokens, got "
            f"{len(codes):,}. Use a longer text, or a shorter `--window`."
        )
    return Data(
        train=_windows(codes[:cut], window),
        test=_windows(codes[cut:], window),
        classes=classes,
        prepare=lambda windows: jnp.asarray(windows, jnp.int32),
        augment=no_augmentation,
        decode=decode,
    )


def _windows(codes: NDArray, window: int) -> Split:
    """Windows one after another, and the tokens that follow; views of the codes."""
    count = (len(codes) - 1) // window
    seen, next_ = codes[: count * window], codes[1 : count * window + 1]
    return Split(seen.reshape(count, window), next_.reshape(count, window))
