"""The named runs: the files in `experiments/runs`, which are loaded by name."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

_RUNS = Path(__file__).parents[1] / "runs"


def names() -> list[str]:
    """The names of all runs, in alphabetical order."""
    return [module.name for module in pkgutil.iter_modules([str(_RUNS)])]


def find(name: str) -> ModuleType:
    """Imports a run: a module with a docstring and a `config`.

    Raises:
      ValueError: if no run has this name.
    """
    if name not in names():
        raise ValueError(
            f"there is no run {name!r}. The named runs are {', '.join(names())}; "
            "`python -m experiments list` describes them."
        )
    return importlib.import_module(f"experiments.runs.{name}")
