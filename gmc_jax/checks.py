"""Checks of hyper-parameters, called by keyword so that errors name the argument."""

from collections.abc import Mapping
from typing import TypeAlias

import jax
import numpy as np
import optax
from jax.core import Tracer

from gmc_jax.core import Channel, Compressor

Number: TypeAlias = object
"""A Python number or an array; tracers are let through, they have no value yet."""


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


def positive(**arguments: Number) -> None:
    """Raises ValueError unless every argument is a whole number of at least 1."""
    for name, value in _concrete(arguments).items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"`{name}` counts something and must be a whole number of at least 1, "
                f"an int, but is {value}."
            )


def count(**arguments: Number) -> None:
    """Raises unless every argument is a whole number of at least 0 known in advance."""
    for name, value in arguments.items():
        if isinstance(value, Tracer):
            raise TypeError(
                f"`{name}` shapes the program, but is traced. Name it in `static_args` "
                "of `optax.inject_hyperparams`."
            )
    for name, value in _concrete(arguments).items():
        if not isinstance(value, int) or value < 0:
            raise ValueError(
                f"`{name}` counts something and must be a whole number of at least 0, "
                f"an int, but is {value}."
            )


def magnitude(**arguments: Number) -> None:
    """Raises ValueError unless every argument is finite and greater than 0."""
    for name, value in _concrete(arguments).items():
        if not 0 < value < np.inf:
            raise ValueError(
                f"`{name}` is a magnitude and must be finite and greater than 0, but "
                f"is {value}."
            )


def amount(**arguments: Number) -> None:
    """Raises ValueError unless every argument is finite and at least 0."""
    for name, value in _concrete(arguments).items():
        if not 0 <= value < np.inf:
            raise ValueError(f"`{name}` must be finite and at least 0, but is {value}.")


def learning_rate(**arguments: Number) -> None:
    """Raises unless every argument is a schedule or a finite rate >= 0."""
    for name, value in arguments.items():
        if value is None:
            raise TypeError(f"`{name}` must be a number or a schedule, but is None.")
    rates = {name: value for name, value in arguments.items() if not callable(value)}
    for name, value in _concrete(rates).items():
        if not 0 <= value < np.inf:
            raise ValueError(
                f"`{name}` must be finite and at least 0 (updates are scaled by its "
                f"negative), but is {value}."
            )


def channel(**arguments: object) -> None:
    """Raises TypeError unless every argument is a channel."""
    for name, value in arguments.items():
        if isinstance(value, Compressor):
            raise TypeError(
                f"`{name}` must be a channel, but is a compressor. Say how messages "
                "travel: `all_gather(compressor)`, or `all_reduce(compressor)` for a "
                "shared one."
            )
        if not isinstance(value, Channel):
            raise TypeError(
                f"`{name}` must be a channel, such as `exact()` or "
                f"`all_gather(top_k(0.01))`, but is {value!r}."
            )


def compressor(**arguments: object) -> None:
    """Raises TypeError unless every argument is a compressor."""
    for name, value in arguments.items():
        if not isinstance(value, Compressor):
            raise TypeError(
                f"`{name}` must be a compressor, such as `top_k(0.01)`, but is "
                f"{value!r}."
            )


def transformation(**arguments: object) -> None:
    """Raises TypeError unless every argument is a transformation of optax."""
    for name, value in arguments.items():
        if not isinstance(value, optax.GradientTransformation):
            raise TypeError(
                f"`{name}` must be a transformation, such as `optax.sgd(0.1)`, but is "
                f"{value!r}."
            )


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
        dtype = jax.numpy.result_type(leaf)
        # Floats of 4 bits have no integers of their width to cross as.
        floats = jax.numpy.issubdtype(dtype, jax.numpy.floating)
        if not floats or jax.numpy.finfo(dtype).bits < 8:
            raise TypeError(
                "Workers average floating-point trees, but the leaf "
                f"`{jax.tree_util.keystr(path) or 'tree'}` has dtype {dtype}. Keep it "
                "out with `optax.partition`, or convert it."
            )


def _concrete(arguments: Mapping[str, Number]) -> dict[str, float]:
    numbers = {}
    for name, value in arguments.items():
        if value is None or isinstance(value, Tracer):
            continue
        array = np.asarray(value)
        if array.ndim or (array.dtype.kind not in "biuf" and not _is_float(array)):
            raise TypeError(f"`{name}` must be a number, but is {value!r}.")
        numbers[name] = array.item()
    return numbers


def _is_float(array: np.ndarray) -> bool:
    return bool(jax.numpy.issubdtype(array.dtype, jax.numpy.floating))
