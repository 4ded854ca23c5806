"""Calls of channels, which a traced program can be made to tell apart."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import jax

from gmc_jax.core import Channel, Tree

Notes: TypeAlias = dict[Hashable, int]
"""The bits of each call, by the name of its equation."""

_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def noting() -> Iterator[Notes]:
    """Makes each call of a channel an equation with a name, for what is traced inside.

    JAX remembers how a jitted function traces. Whoever traces in here must do so in a
    context of its own, or gets, or leaves behind, what belongs to another.
    """
    notes: Notes = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def call(channel: Channel, tree: Tree, state: Tree) -> tuple[Tree, Tree, Tree]:
    """`channel.average`, as everything that averages through a channel calls it."""
    notes = _notes.get()
    if notes is None:
        return channel.average(tree, state)

    def average(tree, state):
        return channel.average(tree, state)

    average.__name__ = f"gmc_jax_call_{len(notes)}"
    notes[average.__name__] = channel.bits(tree)
    return jax.jit(average)(tree, state)
