"""The tables in `tests/support` are complete: a new public name without a row fails."""

import inspect
import re

import gmc_jax
from tests.support.channels import CHANNELS
from tests.support.compressors import COMPRESSORS
from tests.support.methods import METHODS

# Methods with tests of their own: those that run event by event, and those that take
# two gradients a step.
OUTSIDE = {"a_psgd", "ad_psgd", "svrg", "katyusha_x"}


def public(room: str) -> set[str]:
    """The public functions of a room."""
    return {
        name
        for name, thing in inspect.getmembers(gmc_jax, inspect.isfunction)
        if thing.__module__.startswith(f"gmc_jax.{room}.")
    }


def test_every_compressor_has_a_row():
    assert set(COMPRESSORS) == public("compressors")


def test_every_channel_has_a_row_and_so_has_every_compressor_inside_one():
    """A channel shows the calls that made it."""
    shown = " ".join(repr(row.channel) for row in CHANNELS.values())
    made = set(re.findall(r"\w+", shown))
    assert public("channels") | public("compressors") <= made


def test_every_method_has_a_row():
    assert set(METHODS) == public("methods") - OUTSIDE
    assert public("methods") >= OUTSIDE
