"""Tests of the compiled GMC step of a million parameters: its messages and arrays."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import optax

import gmc_jax
from gmc_jax import (
    all_gather,
    all_reduce,
    gmc,
    message_bits,
    query,
    random_block,
    top_k,
    wire_bytes,
)

WORKERS = 8

MILLION = 1_000_000


def text_of(train, *args) -> str:
    return train.lower(*args).compile().as_text()


@functools.cache
def million(channel_name: str) -> tuple[str, gmc_jax.WireBytes]:
    """The text of a GMC step of a million parameters, and what it sends."""
    channel = {
        "top_k": all_gather(top_k(0.001)),
        "random_block": all_reduce(random_block(0.001)),
    }[channel_name]
    tx = gmc(0.1, channel)

    def step(state, batch):
        params, opt_state = state
        grads = jax.grad(lambda w: jnp.sum((w - batch) ** 2))(query(opt_state, params))
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    params = jnp.zeros(MILLION)
    batch = jax.ShapeDtypeStruct((WORKERS, MILLION), jnp.float32)
    train, state = gmc_jax.distribute(step, (params, tx.init(params)), batch)
    sent = wire_bytes(train, state, batch)
    assert sent == message_bits(channel, params) // 8
    return text_of(train, state, batch), sent


def arrays(text: str) -> set[tuple[int, ...]]:
    """The shapes of all arrays in the text of a program."""
    shapes = re.findall(r"\b[a-z]+\d*\w*\[([\d,]+)\]", text)
    return {tuple(map(int, shape.split(","))) for shape in shapes}


def collective_lines(text: str) -> list[str]:
    kinds = "all-|collective-|reduce-scatter|ragged-|send|recv"
    return re.findall(rf"(?m)^.* = .*?[ )]((?:{kinds})[\w-]*\(.*)$", text)


def test_a_million_parameters_exchange_eight_thousand_bytes_a_worker():
    text, sent = million("top_k")
    assert sent == sent.always == 8000
    assert sent.operations == (("all-gather", 4000, False, 1),) * 2
    assert len(collective_lines(text)) == 2
    gathered = re.findall(r"= (\w+\[[\d,]+\])\S* all-gather\(", text)
    assert sorted(gathered) == ["f32[8,1000]", "s32[8,1000]"]


def test_no_array_of_all_workers_times_all_parameters_is_allocated():
    text, _ = million("top_k")
    shapes = arrays(text)
    assert (MILLION,) in shapes
    assert (WORKERS, 1000) in shapes
    assert (WORKERS, MILLION) not in shapes
    assert (WORKERS * 1000, MILLION) not in shapes
    assert max(map(math.prod, shapes)) == MILLION


def test_a_block_of_a_million_parameters_is_one_all_reduce():
    text, sent = million("random_block")
    assert sent == sent.always == 4000
    assert sent.operations == (("all-reduce", 4000, False, 1),)
    (line,) = collective_lines(text)
    assert re.search(r"= f32\[1000\]\S* all-reduce\(", text), line
    assert max(map(math.prod, arrays(text))) == MILLION
