"""Calls of channels, which can be made visible in a traced program."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import jax

from gmc_jax.core import Channel, Tree

BitsOfCalls: TypeAlias = dict[Hashable, int]
"""The bits of each call, by the name of its equation."""

_recorder: ContextVar[BitsOfCalls | None] = ContextVar("recorder", default=None)


@contextmanager
def named_calls() -> Iterator[BitsOfCalls]:
    """Makes each call of a channel a named equation of what is traced in the block.

    JAX caches the traces of jitted functions. So trace in a context that no other code
    has, such as inside a named axis of your own. Otherwise older traces without these
    names may be reused here, and traces with these names may be reused later.
    """
    calls: BitsOfCalls = {}
    token = _recorder.set(calls)
    try:
        yield calls
    finally:
        _recorder.reset(token)


def calls_are_named() -> bool:
    """Whether calls are named equations of what is traced now."""
    return _recorder.get() is not None


def call(channel: Channel, tree: Tree, state: Tree) -> tuple[Tree, Tree, Tree]:
    """Calls `channel.average`; all code that averages through a channel calls this.

    Profilers show what it computes under the name `gmc_jax_channel`.
    """
    calls = _recorder.get()
    if calls is None:
        with jax.named_scope("gmc_jax_channel"):
            return channel.average(tree, state)

    def average(tree, state):
        return channel.average(tree, state)

    average.__name__ = f"gmc_jax_call_{len(calls)}"
    calls[average.__name__] = channel.bits(tree)
    return jax.jit(average)(tree, state)
