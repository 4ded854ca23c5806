"""Docstrings as Sphinx gets them."""

import inspect
import re
from html.parser import HTMLParser
from typing import NamedTuple

import pytest

import gmc_jax
from experiments.docs import docstrings

DOCSTRING = """\
Sends |x| * 2 of `d`s, as in `a*b` or x_; *all* of it.

    u_k = e_k *
      g_k

For one:

* a list
* of two

Args:
  x: a number,
    or *args.

Returns:
  A pair: of numbers.

Example:
  In words:

  >>> x_ = 1 * 2
  2

Guarantees:
  It is
  fast. It is
  good.
  It is exact:

      a = b

  And cheap.
"""

RESTRUCTURED = r"""
Sends \|x\| \* 2 of `d`\ s, as in `a*b` or x\_; *all* of it.

.. code-block:: text

    u_k = e_k *
      g_k

For one:

* a list
* of two

Args:
  x: a number,
    or \*args.

Returns:
  : A pair: of numbers.

Example:
  In words:

  >>> x_ = 1 * 2
  2

Guarantees:
  * It is
    fast. It is
    good.
  * It is exact:

    .. code-block:: text

        a = b

  * And cheap.
"""


def test_a_docstring_becomes_restructured_text():
    shown = docstrings.restructured(DOCSTRING.splitlines())
    assert "\n".join(shown) == RESTRUCTURED.strip()


def test_a_restructured_docstring_says_the_same():
    """But for indentation, and marks that are not shown."""

    def plain(text: str) -> str:
        return re.sub(r"\.\. code-block:: text|[\\*:\s]", "", text)

    for name in gmc_jax.__all__:
        written = inspect.getdoc(getattr(gmc_jax, name)) or ""
        shown = "\n".join(docstrings.restructured(written.splitlines()))
        assert plain(shown) == plain(written), name


class Record(NamedTuple):
    """Of two fields."""

    first: "int | None"
    second: str = "int"


class Thing:
    """With an argument."""

    def __init__(self, value: "Record") -> None: ...

    def method(self, other: "Thing", *, flag: bool = False) -> None: ...


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (
            gmc_jax.gmc,
            (
                "(learning_rate: optax.ScalarOrSchedule, channel: Channel, *, "
                "momentum: float | None=0.9)",
                "optax.GradientTransformationExtraArgs",
            ),
        ),
        (Record, ("(first: int | None, second: str = 'int')", None)),
        (Thing, ("(value: Record)", None)),
        (HTMLParser.close, ("(self)", None)),
        (gmc_jax.topologies, None),
    ],
    ids=["function", "record", "class", "without types", "module"],
)
def test_signatures_are_shown_as_they_are_written(thing, shown):
    assert docstrings.signature(thing) == shown


def test_a_method_is_shown_without_its_object():
    shown = docstrings.signature(Thing.method, method=True)
    assert shown == ("(other: Thing, *, flag: bool=False)", None)
