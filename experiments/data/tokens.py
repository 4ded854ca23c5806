"""Token files: a text, encoded by a tokenizer that is trained on it.

Nothing is downloaded. The tokenizer is byte-level byte-pair encoding, as GPT-2's.
"""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LEAST = 256  # The bytes are tokens, so that any text can be encoded.
_MOST = 2**16  # Tokens are stored as uint16.
_PIECE = 2**20  # Characters that are encoded at a time, to bound the memory.


def write(text_file: Path, vocabulary: int, tokens_file: Path) -> int:
    """Trains a tokenizer on a text, and writes it and the encoded text.

    Args:
      text_file: a text in UTF-8.
      vocabulary: the number of different tokens, from 256 to 65,536.
      tokens_file: where the tokens go, a .npy of uint16. The tokenizer is written
        beside it, with the suffix .json.

    Returns:
      The number of tokens in the file.

    Raises:
      FileExistsError: if the file is there already.
      ValueError: if a size is out of its range, the text cannot be read, or the file
        does not end in .npy.
    """
    if not _LEAST <= vocabulary <= _MOST:
        raise ValueError(
            f"`vocabulary` must be in [{_LEAST}, {_MOST}], got {vocabulary}. The bytes "
            "are tokens, and a token has 16 bits."
        )
    if tokens_file.suffix != ".npy":
        raise ValueError(
            f"`tokens_file` must end in .npy, got {str(tokens_file)!r}. Name a file "
            "such as text.npy."
        )
    for file in (tokens_file, tokens_file.with_suffix(".json")):
        if file.exists():
            raise FileExistsError(f"{file} is there already. Name another file.")
    tokenizer = _trained(text := read(text_file), vocabulary)
    pieces = (text[i : i + _PIECE] for i in range(0, len(text), _PIECE))
    codes = [np.asarray(tokenizer.encode(piece).ids, np.uint16) for piece in pieces]
    joined = np.concatenate(codes)
    tokenizer.save(str(tokens_file.with_suffix(".json")))
    np.save(tokens_file, joined)
    return len(joined)


def load(tokens_file: Path | None) -> tuple[NDArray[np.uint16], "Tokenizer"]:
    """Maps a token file into memory, and reads its tokenizer.

    Raises:
      ValueError: if no file is named, or the file or its tokenizer cannot be read.
    """
    if tokens_file is None:
        raise ValueError(
            "`data_file` must name a token file. Write one with `python -m experiments "
            "tokens X.txt X.npy`, and name it: `--data-file X.npy`."
        )
    library = _tokenizers()
    try:
        codes = np.load(tokens_file, mmap_mode="r")
        tokenizer = library.Tokenizer.from_file(str(tokens_file.with_suffix(".json")))
    except Exception as error:  # The tokenizer raises nothing narrower.
        raise ValueError(
            f"`data_file` is {str(tokens_file)!r}, and it or the tokenizer beside it "
            f"cannot be read ({error}). Write both with `python -m experiments tokens`."
        ) from None
    if codes.ndim != 1 or codes.dtype != np.uint16:
        raise ValueError(
            f"`data_file` must hold a vector of uint16, got {codes.dtype} "
            f"{list(codes.shape)}. Write it with `python -m experiments tokens`."
        )
    return codes, tokenizer


def read(text_file: Path | None) -> str:
    """Reads a text in UTF-8.

    Raises:
      ValueError: if no file is named, or it cannot be read as UTF-8.
    """
    if text_file is None:
        raise ValueError(
            "`data_file` must name a text. Name any file in UTF-8: `--text-file X.txt`."
        )
    try:
        return text_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"is not in UTF-8 ({error})"
        if isinstance(error, OSError):
            problem = f"cannot be read ({error.strerror})"
        raise ValueError(
            f"`data_file` is {str(text_file)!r}, which {problem}. Name any file in "
            "UTF-8: `--text-file X.txt`."
        ) from None


def _trained(text: str, vocabulary: int) -> "Tokenizer":
    library = _tokenizers()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def _tokenizers() -> ModuleType:
    """Imports the library of tokenizers, which only token files need."""
    try:
        import tokenizers
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "token files need tokenizers, which is not installed. Install it with `pip "
            'install -e ".[tokens]"`, or use `--data bytes`.'
        ) from None
    return tokenizers
