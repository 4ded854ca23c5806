"""The named runs: the files in `experiments/runs`."""

import importlib
import pkgutil
from types import ModuleType

from experiments import runs


def names() -> list[str]:
    """The names of all runs: of the files beside each other in `experiments/runs`."""
    return [module.name for module in pkgutil.iter_modules(runs.__path__)]


def find(name: str) -> ModuleType:
    """The run of that name: a module with a docstring and a `config`.

    Raises:
      ValueError: if there is none.
    """
    if name not in names():
        raise ValueError(
            f"there is no run {name!r}. The named runs are {', '.join(names())}; "
            "`python -m experiments list` says what each of them is."
        )
    return importlib.import_module(f"{runs.__name__}.{name}")
