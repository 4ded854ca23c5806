"""Tokenizers, and the files of their tokens."""

import sys

import numpy as np
import pytest

from experiments.data import tokens
from experiments.data.text import token_file


@pytest.fixture(scope="module")
def token_files(tmp_path_factory):
    """A text of few words, and the file of its tokens."""
    folder = tmp_path_factory.mktemp("tokens")
    words = "to be or not to be, that is the question:\n" * 60 + "é"
    (folder / "text.txt").write_text(words, encoding="utf-8")
    count = tokens.write(folder / "text.txt", 280, folder / "text.npy")
    return words, folder / "text.npy", count


def test_tokens_are_fewer_than_characters_and_decode_to_the_text(token_files):
    words, file, count = token_files

    codes, tokenizer = tokens.load(file)

    assert isinstance(codes, np.memmap)
    assert len(codes) == count < len(words) / 1.5
    assert codes.max() < tokenizer.get_vocab_size() <= 280
    assert tokenizer.decode(codes.tolist()) == words


def test_token_files_are_never_overwritten_and_bad_ones_are_named(
    token_files, tmp_path
):
    _, file, _ = token_files
    source = file.with_name("text.txt")
    with pytest.raises(FileExistsError, match="is there already"):
        tokens.write(source, 280, file)
    with pytest.raises(ValueError, match=r"`vocabulary` must be in .256, 65536., got"):
        tokens.write(source, 70_000, tmp_path / "new.npy")
    with pytest.raises(ValueError, match=r"must end in \.npy"):
        tokens.write(source, 280, tmp_path / "new.bin")
    with pytest.raises(ValueError, match=r"must name a token file.*tokens X\.txt"):
        token_file(None)
    with pytest.raises(ValueError, match=r"missing\.npy', and .* cannot be read"):
        token_file(tmp_path / "missing.npy")
    np.save(tmp_path / "wide.npy", np.zeros(3))
    (tmp_path / "wide.json").write_bytes(file.with_suffix(".json").read_bytes())
    with pytest.raises(ValueError, match="a vector of uint16, got float64"):
        token_file(tmp_path / "wide.npy")


def test_without_the_library_the_error_names_the_extra(monkeypatch, token_files):
    _, file, _ = token_files
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[tokens\]"'):
        tokens.load(file)
