"""Tests of warnings at the caller's line."""

import inspect
import warnings

import pytest

from gmc_jax.utils.caller_warnings import warn_caller


def called_inside(*modules: str):
    """A function that calls `warn_caller` through functions of such modules."""
    function = warn_caller
    for module in modules:
        scope = {"__name__": module, "inner": function}
        exec("def outer(text):\n    inner(text)", scope)
        function = scope["outer"]
    return function


@pytest.mark.parametrize(
    "modules", [(), ("gmc_jax.x",), ("gmc_jax.x", "jax.y", "gmc_jax.z", "optax.w")]
)
def test_a_warning_is_at_the_line_of_the_user(modules):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.stack()[0].lineno + 1
        called_inside(*modules)("Doubtful.")
    (warning,) = caught
    assert str(warning.message) == "Doubtful."
    assert warning.category is UserWarning
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_other_modules_count_as_the_users():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        called_inside("gmc_jax.x", "users.training", "jax.y")("Doubtful.")
    assert caught[0].filename == "<string>"
