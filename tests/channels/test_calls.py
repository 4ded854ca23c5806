"""Names that profilers show."""

import re

import jax
import jax.numpy as jnp

from gmc_jax import all_gather, averaged, exact, top_k


def names(channel):
    """The names, inside a call of the channel, of all that is compiled."""
    tx = averaged(channel)

    def update(updates):
        return tx.update(updates, tx.init(updates))[0]

    over_workers = jax.vmap(update, axis_name="workers")
    text = jax.jit(over_workers).lower(jnp.ones((2, 20))).as_text(debug_info=True)
    return set(re.findall(r"gmc_jax_channel\)?/(\w+)", text))


def test_what_a_channel_computes_has_its_name():
    """Under `vmap`, too, which puts its own name around it."""
    assert names(all_gather(top_k(0.2))) >= {"encode", "exchange", "decode"}
    assert names(exact()).isdisjoint({"encode", "exchange", "decode"})
    assert names(exact())
