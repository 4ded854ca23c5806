"""Objects that print as the call that made them.

Compressors, channels and transformations are tuples of functions, which print as
addresses in memory. Factories with the decorator `call_repr` return the same tuples,
but `repr` gives `all_gather(top_k(0.01))`.
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

Value: TypeAlias = object
"""An argument or a result, of any type."""

_MAX_CHARACTERS = 60  # A longer `repr` of an argument is replaced by its class.
_MAX_ELEMENTS = 6  # Further elements of a sequence are not shown.


class Call(NamedTuple):
    """The call of a factory.

    Attributes:
      name: the name of the factory.
      arguments: the positional arguments.
      options: the keyword arguments, without those that equal their defaults.
    """

    name: str
    arguments: tuple[Value, ...]
    options: Mapping[str, Value]

    def __str__(self) -> str:
        """Writes the call as code."""
        words = [*map(_shown, self.arguments)]
        words += [f"{name}={_shown(value)}" for name, value in self.options.items()]
        return f"{self.name}({', '.join(words)})"


class CallRepr:
    """Base of classes, other than tuples, that print as the call that made them."""

    def __repr__(self) -> str:
        """Writes the call, or a short description if no factory made the object."""
        return str(vars(self).get("_call", self._in_short))

    @property
    def _in_short(self) -> str:
        """A short description."""
        return f"<{type(self).__name__}>"


def call_repr(factory: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
    """Makes the results of a factory print as the call: `top_k(0.01)`.

    Nothing else changes: results have the same type, and compare as before. An object
    derived from a result, for example by `_replace`, does not print as a call.

    Args:
      factory: returns tuples with named fields, or `CallRepr` objects.
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
            return _make(getattr(type(made), "_kind", type(made)), made, call)
        vars(made)["_call"] = call
        return made

    return make


def has_call(value: Value) -> bool:
    """Whether an object prints as the call that made it."""
    return "_call" in getattr(value, "__dict__", {})


def _make(kind, fields, call: Call):
    """Makes a tuple with named fields that also holds its call."""
    made = _class_of(kind)(*fields)
    made._call = call
    return made


@functools.cache
def _class_of(kind):
    """Makes a subclass of a tuple class, whose objects print as their calls."""

    def show(self) -> str:
        return str(self._call) if has_call(self) else kind.__repr__(self)

    def reduce(self) -> tuple:
        if has_call(self):
            return _make, (kind, tuple(self), self._call)
        return kind, tuple(self)

    body = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__repr__": show,
        "__reduce__": reduce,
        "_kind": kind,
    }
    return type(kind.__name__, (kind,), body)


def _same(value: Value, default: Value) -> bool:
    return value is default or (
        isinstance(value, bool | int | float | str)
        and type(value) is type(default)
        and value == default
    )


def _shown(value: Value) -> str:
    """Describes an argument in few characters."""
    if isinstance(value, Tracer):
        return f"<traced {value.dtype}{list(value.shape)}>"
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        if value.ndim == 0 and np.issubdtype(value.dtype, np.floating):
            return f"{float(value):g}"
        return f"<{value.dtype}{list(value.shape)}>"
    if has_call(value):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_elements(value))}]"
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({', '.join(_elements(value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, tuple) and value and all(map(callable, value)):
        return _name_of(value[-1])  # Such as a transformation of optax.
    if isinstance(value, functools.partial):
        return f"partial({_name_of(value.func)}, ...)"
    if isinstance(value, FunctionType):
        return _name_of(value)
    text = repr(value)
    return text if len(text) <= _MAX_CHARACTERS else f"<{type(value).__name__}>"


def _elements(values: Sequence[Value]) -> list[str]:
    return [
        *map(_shown, values[:_MAX_ELEMENTS]),
        *["..."] * (len(values) > _MAX_ELEMENTS),
    ]


def _name_of(function: Callable) -> str:
    """Returns the name of a function; if it is optax's, the name of its factory."""
    names = getattr(function, "__qualname__", type(function).__name__).split(".")
    if str(getattr(function, "__module__", "")).startswith("optax"):
        return f"optax.{names[0]}(...)"
    return names[-1]
