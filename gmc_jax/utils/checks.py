"""Checks of arguments, called by keyword so that errors name the argument.

Unless its docstring says otherwise, a check refuses None and accepts tracers, whose
values are not known yet.
"""

import reprlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import jax
import numpy as np
import optax
from jax.core import Tracer

from gmc_jax.core import Channel, Compressor
from gmc_jax.utils import wrong_kinds
from gmc_jax.utils.call_repr import has_call

Number: TypeAlias = object
"""A Python number, or an array without dimensions."""


def fraction(**arguments: Number) -> None:
    """Raises ValueError unless every argument lies in (0, 1]."""
    for name, value in _concrete(arguments).items():
        if not 0 < value <= 1:
            raise ValueError(
                f"`{name}` must be in (0, 1], got {value}; it is a fraction, and 1 "
                "means all."
            )


def decay(**arguments: Number) -> None:
    """Raises ValueError unless every argument lies in [0, 1)."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value < 1:
            raise ValueError(
                f"`{name}` must be in [0, 1), got {value}; from 1 on, past gradients "
                "would never decay."
            )


def proportion(**arguments: Number) -> None:
    """Raises ValueError unless every argument lies in [0, 1]."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"`{name}` must be in [0, 1], got {value}; it is a share, where 0 "
                "means none and 1 means all."
            )


def momentum(**arguments: Number | None) -> None:
    """Raises unless every argument lies in [0, 1), or is None for no momentum."""
    decay(**{name: value for name, value in arguments.items() if value is not None})


def positive_int(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 1, not a tracer."""
    known(**arguments)
    steps(**arguments)


def steps(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 1, or a tracer."""
    _check_whole(arguments, least=1)


def whole(**argument: Number) -> int:
    """Returns the argument as an int; raises unless it is one of at least 1.

    A float that is a whole number will do: large counts are written as `1e9`.
    """
    known(**argument)
    ((name, value),) = _concrete(argument).items()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    _check_whole({name: value}, least=1)
    return int(value)


def nonnegative_int(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 0, not a tracer."""
    known(**arguments)
    _check_whole(arguments, least=0)


def seed(**arguments: Number) -> None:
    """Raises unless every argument is a whole number that fits 64 bits."""
    for name, value in _concrete(arguments).items():
        if not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise ValueError(
                f"`{name}` must be a whole number that fits 64 bits, got {value}; "
                "pass an `int`, such as 0."
            )


def known(**arguments: object) -> None:
    """Raises TypeError if an argument is a tracer; the program depends on its value."""
    for name, value in arguments.items():
        if isinstance(value, Tracer):
            raise TypeError(
                f"`{name}` must be known when the step is compiled, got "
                f"{shown(value)}; it shapes the program. Name it in `static_args` of "
                "`optax.inject_hyperparams`."
            )


def flag(**arguments: object) -> None:
    """Raises TypeError unless every argument is True or False."""
    known(**arguments)
    for name, value in arguments.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"`{name}` must be True or False, got {shown(value)}.")


def several(**arguments: object) -> None:
    """Raises TypeError unless every argument is a list, or another iterable."""
    known(**arguments)
    for name, value in arguments.items():
        # A single compressor, channel or transformation is a tuple, so iterable.
        others = str | Mapping | Compressor | Channel | optax.GradientTransformation
        if isinstance(value, others) or not isinstance(value, Iterable):
            raise TypeError(
                f"`{name}` must be a list, got {shown(value)}; put a single one in "
                "brackets."
            )


def axis(**arguments: object) -> None:
    """Raises TypeError unless every argument is the name of an axis."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise TypeError(
                f"`{name}` must be the name of an axis, such as 'workers', got "
                f"{shown(value)}."
            )


def function(**arguments: object) -> None:
    """Raises TypeError unless every argument is a function."""
    for name, value in arguments.items():
        if not callable(value):
            hint = (
                " `optax.inject_hyperparams` calls a function as a schedule unless its "
                f"`static_args` name it: add `{name}` there."
            )
            raise TypeError(
                f"`{name}` must be a function, got {shown(value)}."
                f"{hint if isinstance(value, jax.Array) else ''}"
            )


def positive(**arguments: Number) -> None:
    """Raises ValueError unless every argument is finite and greater than 0."""
    for name, value in _concrete(arguments).items():
        if not 0 < value < np.inf:
            raise ValueError(
                f"`{name}` must be finite and greater than 0, got {value}."
            )


def nonnegative(**arguments: Number) -> None:
    """Raises ValueError unless every argument is finite and at least 0."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value < np.inf:
            raise ValueError(f"`{name}` must be finite and at least 0, got {value}.")


def learning_rate(**arguments: Number) -> None:
    """Raises unless every argument is a schedule, or finite and at least 0."""
    rates = {name: value for name, value in arguments.items() if not callable(value)}
    for name, value in _concrete(rates, "a number or a schedule").items():
        if not 0 <= value < np.inf:
            raise ValueError(
                f"`{name}` must be finite and at least 0, got {value}; the minus sign "
                "of gradient descent is added to it."
            )


def channel(**arguments: object) -> None:
    """Raises TypeError unless every argument is a channel."""
    for name, value in arguments.items():
        if not isinstance(value, Channel):
            raise wrong_kinds.no_channel(name, value, shown(value))


def compressor(**arguments: object) -> None:
    """Raises TypeError unless every argument is a compressor."""
    for name, value in arguments.items():
        if not isinstance(value, Compressor):
            raise wrong_kinds.no_compressor(name, value, shown(value))


def transformation(**arguments: object) -> None:
    """Raises TypeError unless every argument is an optax transformation."""
    for name, value in arguments.items():
        if not isinstance(value, optax.GradientTransformation):
            raise wrong_kinds.no_transformation(name, value, shown(value))


def one_axis(**arguments: Channel) -> None:
    """Raises ValueError unless all channels average over the same workers."""
    names = {name: channel.axis_name for name, channel in arguments.items()}
    if len(set(names.values())) > 1:
        raise ValueError(
            " and ".join(f"`{name}`" for name in names) + " must average over the same "
            f"workers, got the named axes {list(names.values())}. Pass the same "
            "`axis_name` to all of them."
        )


def floating(tree: object) -> None:
    """Raises TypeError unless every leaf is real and floating, of at least 8 bits."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            dtype = jax.numpy.result_type(leaf)
        except TypeError:
            got = shown(leaf)
        else:
            # Floats are sent as integers of their width; 4 bits have no such integers.
            floats = jax.numpy.issubdtype(dtype, jax.numpy.floating)
            if floats and jax.numpy.finfo(dtype).bits >= 8:
                continue
            got = f"dtype {'float0' if dtype == jax.dtypes.float0 else dtype}"
        raise TypeError(
            f"The leaf `{jax.tree_util.keystr(path) or 'tree'}` must hold real floats "
            f"of at least 8 bits for workers to average it, got {got}. Convert it, or "
            "keep it out of training with `optax.partition`."
        )


def shown(value: object) -> str:
    """Describes a value in a few words, for errors."""
    for kind, name in (
        (Compressor, "compressor"),
        (Channel, "channel"),
        (optax.GradientTransformation, "transformation"),
    ):
        if isinstance(value, kind):
            return repr(value) if has_call(value) else f"a {name}"
    if isinstance(value, Tracer):
        return f"a traced {value.aval}"
    return reprlib.repr(value)


def _check_whole(arguments: Mapping[str, Number], least: int) -> None:
    for name, value in _concrete(arguments).items():
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"`{name}` must be a whole number of at least {least}, got {value}"
                f"{'.' if isinstance(value, int) else '; pass an `int`.'}"
            )


def _concrete(
    arguments: Mapping[str, Number], kind: str = "a number"
) -> dict[str, float]:
    """Returns the values that are not tracers; raises TypeError for other types."""
    numbers = {}
    for name, value in arguments.items():
        if not _is_number(value):
            raise TypeError(f"`{name}` must be {kind}, got {shown(value)}.")
        if not isinstance(value, Tracer):
            numbers[name] = np.asarray(value).item()
    return numbers


def _is_number(value: Number) -> bool:
    if isinstance(value, bool):
        return False
    if not isinstance(value, np.ndarray | np.generic | jax.Array):
        return isinstance(value, int | float)
    kinds = jax.numpy.integer, jax.numpy.floating
    return not value.ndim and any(
        jax.numpy.issubdtype(value.dtype, kind) for kind in kinds
    )
