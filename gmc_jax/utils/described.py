"""Things that print as the call that made them.

Compressors, channels and transformations are tuples of functions, which print as where
in memory these lie. Factories with the decorator `described` return the same tuples,
but `repr` says `all_gather(top_k(0.01))`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import NamedTuple, ParamSpec, TypeAlias, TypeVar

import jax
import numpy as np
from jax.core import Tracer

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")

Thing: TypeAlias = object
"""An argument, of any kind."""

_LONGEST = 60  # Characters of an argument that has no shorter form.
_MOST = 6  # Elements of a sequence.


class Call(NamedTuple):
    """The call of a factory.

    Attributes:
      name: of the factory.
      arguments: as they were given, by position.
      options: those given by name, but for those that have their defaults.
    """

    name: str
    arguments: tuple[Thing, ...]
    options: Mapping[str, Thing]

    def __str__(self) -> str:
        """The call as it could be written."""
        given = [*map(_shown, self.arguments)]
        given += [f"{name}={_shown(value)}" for name, value in self.options.items()]
        return f"{self.name}({', '.join(given)})"


class Described:
    """A thing that is no tuple, and prints as the call that made it."""

    def __repr__(self) -> str:
        """The call, or what it is where no factory made it."""
        return str(vars(self).get("_call", self._in_short))

    @property
    def _in_short(self) -> str:
        """What it is."""
        return f"<{type(self).__name__}>"


def described(factory: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
    """Lets what a factory returns print as the call: `top_k(0.01)`.

    What is returned is of the same type, compares and behaves as it did. What is made
    of it afterwards, say by `_replace`, is another thing, and prints as it would.

    Args:
      factory: of tuples with named fields, or of `Described` things.
    """
    parameters = inspect.signature(factory).parameters
    name = getattr(factory, "__name__", "")

    @functools.wraps(factory)
    def make(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Made:
        made = factory(*args, **kwargs)
        options = {
            option: value
            for option, value in kwargs.items()
            if option not in parameters or not _same(value, parameters[option].default)
        }
        call = Call(name, args, options)
        if isinstance(made, tuple):
            return _remade(getattr(type(made), "_kind", type(made)), made, call)
        vars(made)["_call"] = call
        return made

    return make


def is_described(value: Thing) -> bool:
    """Whether a thing prints as the call that made it."""
    return "_call" in getattr(value, "__dict__", {})


def _remade(kind, fields, call: Call):
    """A tuple of a kind with its call beside its fields."""
    made = _class_of(kind)(*fields)
    made._call = call
    return made


@functools.cache
def _class_of(kind):
    """The class of a kind of tuples that print as the call that made them."""

    def show(self) -> str:
        return str(self._call) if is_described(self) else kind.__repr__(self)

    def reduce(self) -> tuple:
        if is_described(self):
            return _remade, (kind, tuple(self), self._call)
        return kind, tuple(self)

    body = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__repr__": show,
        "__reduce__": reduce,
        "_kind": kind,
    }
    return type(kind.__name__, (kind,), body)


def _same(value: Thing, default: Thing) -> bool:
    return value is default or (
        isinstance(value, bool | int | float | str)
        and type(value) is type(default)
        and value == default
    )


def _shown(value: Thing) -> str:
    """An argument in short."""
    if isinstance(value, Tracer):
        return f"<traced {value.dtype}{list(value.shape)}>"
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        if value.ndim == 0 and np.issubdtype(value.dtype, np.floating):
            return f"{float(value):g}"
        return f"<{value.dtype}{list(value.shape)}>"
    if is_described(value):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_elements(value))}]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({', '.join(_elements(value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, tuple) and value and all(map(callable, value)):
        return _name_of(value[-1])  # A transformation of optax, say.
    if isinstance(value, functools.partial):
        return f"partial({_name_of(value.func)}, ...)"
    if isinstance(value, FunctionType):
        return _name_of(value)
    text = repr(value)
    return text if len(text) <= _LONGEST else f"<{type(value).__name__}>"


def _elements(values: Sequence[Thing]) -> list[str]:
    return [*map(_shown, values[:_MOST]), *["..."] * (len(values) > _MOST)]


def _name_of(function: Callable) -> str:
    """A function; of what factories of optax return, the factory."""
    names = getattr(function, "__qualname__", type(function).__name__).split(".")
    if str(getattr(function, "__module__", "")).startswith("optax"):
        return f"optax.{names[0]}(...)"
    return names[-1]
