"""The command `tokens`: trains a tokenizer on a text, and encodes the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.commands import _options
from experiments.data import tokens
from experiments.training.study import say


@dataclass(frozen=True)
class Tokens:
    """Train a byte-level BPE tokenizer on a text, and write the text as tokens."""

    text_file: tyro.conf.Positional[Path]
    """A text in UTF-8."""
    tokens_file: tyro.conf.Positional[Path]
    """Where the tokens go: a .npy file. The tokenizer goes beside it, as .json."""
    vocabulary: int = 4096
    """The number of different tokens, from 256 to 65,536."""


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    chosen = _options.call(Tokens, "tokens", options)
    count = tokens.write(chosen.text_file, chosen.vocabulary, chosen.tokens_file)
    say(
        f"Wrote {count:,} tokens: train with `--data tokens --data-file "
        f"{chosen.tokens_file}`."
    )
