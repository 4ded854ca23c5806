"""A small transformer on a small text, for tests that train or build one."""

from pathlib import Path
from typing import Any

from experiments.models.gpt import Gpt
from experiments.training.config import Config

TEXT = "abcdefghij" * 300
"""Three thousand characters; each determines the next."""


def written(folder: Path) -> Path:
    """The text, in a file."""
    file = folder / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


def small_gpt(data_file: Path, **options: Any) -> Config:
    """A configuration of one block for two workers."""
    chosen: dict[str, Any] = {
        "data": "text",
        "gpt": Gpt(blocks=1, width=8, heads=2),
        "window": 6,
        "methods": ("adam",),
        "batch_size": 3,
        "steps": 4,
    }
    return Config(
        data_file=data_file,
        model="gpt",
        workers=2,
        partition="iid",
        count=False,
        **(chosen | options),
    )
