"""Checks of hyper-parameters, called by keyword so that errors name the argument.

Unless it says otherwise a check lets tracers through, which have no value yet, and
refuses None.
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
from gmc_jax.utils.described import is_described

Number: TypeAlias = object
"""A Python number, or an array of no dimensions."""


def fraction(**arguments: Number) -> None:
    """Raises ValueError unless every argument lies in (0, 1]."""
    for name, value in _concrete(arguments).items():
        if not 0 < value <= 1:
            raise ValueError(
                f"`{name}` is a fraction and must lie in (0, 1], but is {value}."
            )


def decay(**arguments: Number) -> None:
    """Raises ValueError unless every argument lies in [0, 1)."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value < 1:
            raise ValueError(
                f"`{name}` multiplies what is remembered at every step and must lie "
                f"in [0, 1), or it would never fade, but is {value}."
            )


def proportion(**arguments: Number) -> None:
    """Raises ValueError unless every argument lies in [0, 1]."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value <= 1:
            raise ValueError(
                f"`{name}` is a proportion and must lie in [0, 1], but is {value}."
            )


def momentum(**arguments: Number | None) -> None:
    """Raises unless every argument lies in [0, 1), or is None for no momentum."""
    decay(**{name: value for name, value in arguments.items() if value is not None})


def positive_int(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 1 known in advance."""
    known(**arguments)
    steps(**arguments)


def steps(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 1, perhaps traced."""
    _check_whole(arguments, least=1)


def nonnegative_int(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 0 known in advance."""
    known(**arguments)
    _check_whole(arguments, least=0)


def seed(**arguments: Number) -> None:
    """Raises unless every argument is a whole number that fits 64 bits."""
    for name, value in _concrete(arguments).items():
        if not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise ValueError(
                f"`{name}` seeds draws and must be a whole number that fits 64 bits, "
                f"an int, but is {value}."
            )


def known(**arguments: object) -> None:
    """Raises TypeError where an argument is traced, although it shapes the program."""
    for name, value in arguments.items():
        if isinstance(value, Tracer):
            raise TypeError(
                f"`{name}` shapes the program, but is traced. Name it in `static_args` "
                "of `optax.inject_hyperparams`."
            )


def flag(**arguments: object) -> None:
    """Raises TypeError unless every argument is True or False."""
    known(**arguments)
    for name, value in arguments.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"`{name}` must be True or False, but is {shown(value)}.")


def several(**arguments: object) -> None:
    """Raises TypeError unless every argument is a list, or another iterable."""
    known(**arguments)
    for name, value in arguments.items():
        # Those of ours, and of optax, are tuples as well.
        others = str | Mapping | Compressor | Channel | optax.GradientTransformation
        if isinstance(value, others) or not isinstance(value, Iterable):
            raise TypeError(f"`{name}` must be a list, but is {shown(value)}.")


def axis(**arguments: object) -> None:
    """Raises TypeError unless every argument is the name of an axis."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise TypeError(
                f"`{name}` must be the name of an axis, such as 'workers', but is "
                f"{shown(value)}."
            )


def function(**arguments: object) -> None:
    """Raises TypeError unless every argument is a function."""
    for name, value in arguments.items():
        if not callable(value):
            hint = (
                " Under `optax.inject_hyperparams`, which takes functions for "
                "schedules, name it in `static_args`."
            )
            raise TypeError(
                f"`{name}` must be a function, but is {shown(value)}."
                f"{hint if isinstance(value, jax.Array) else ''}"
            )


def positive(**arguments: Number) -> None:
    """Raises ValueError unless every argument is finite and greater than 0."""
    for name, value in _concrete(arguments).items():
        if not 0 < value < np.inf:
            raise ValueError(
                f"`{name}` is a magnitude and must be finite and greater than 0, but "
                f"is {value}."
            )


def nonnegative(**arguments: Number) -> None:
    """Raises ValueError unless every argument is finite and at least 0."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value < np.inf:
            raise ValueError(f"`{name}` must be finite and at least 0, but is {value}.")


def learning_rate(**arguments: Number) -> None:
    """Raises unless every argument is a schedule or a finite rate >= 0."""
    rates = {name: value for name, value in arguments.items() if not callable(value)}
    for name, value in _concrete(rates, "a number or a schedule").items():
        if not 0 <= value < np.inf:
            raise ValueError(
                f"`{name}` must be finite and at least 0 (updates are scaled by its "
                f"negative), but is {value}."
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
            f"workers, but are over the named axes {list(names.values())}. Pass the "
            "same `axis_name` to all of them."
        )


def floating(tree: object) -> None:
    """Raises TypeError unless every leaf is real and floating, of at least 8 bits."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        try:
            dtype = jax.numpy.result_type(leaf)
        except TypeError:
            raise TypeError(
                "Workers average floating-point trees, but the leaf "
                f"`{jax.tree_util.keystr(path) or 'tree'}` is {shown(leaf)}, no array. "
                "Keep it out of what is trained, say with `optax.partition`."
            ) from None
        # Floats of 4 bits have no integers of their width to cross as.
        floats = jax.numpy.issubdtype(dtype, jax.numpy.floating)
        if not floats or jax.numpy.finfo(dtype).bits < 8:
            dtype = "float0" if dtype == jax.dtypes.float0 else dtype
            raise TypeError(
                "Workers average floating-point trees, but the leaf "
                f"`{jax.tree_util.keystr(path) or 'tree'}` has dtype {dtype}. Keep it "
                "out with `optax.partition`, or convert it."
            )


def shown(value: object) -> str:
    """A value as errors show it, in a few words."""
    for kind, name in (
        (Compressor, "compressor"),
        (Channel, "channel"),
        (optax.GradientTransformation, "transformation"),
    ):
        if isinstance(value, kind):
            return repr(value) if is_described(value) else f"a {name}"
    if isinstance(value, Tracer):
        return f"a traced {value.aval}"
    return reprlib.repr(value)


def _check_whole(arguments: Mapping[str, Number], least: int) -> None:
    for name, value in _concrete(arguments).items():
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"`{name}` counts something and must be a whole number of at least "
                f"{least}, an int, but is {value}."
            )


def _concrete(
    arguments: Mapping[str, Number], kind: str = "a number"
) -> dict[str, float]:
    """The values of numbers; TypeError for what is none."""
    numbers = {}
    for name, value in arguments.items():
        if not _is_number(value):
            raise TypeError(f"`{name}` must be {kind}, but is {shown(value)}.")
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
