"""What factories return says how it was made, and is what it was in every other way."""

import copy
import functools
import inspect
import pickle
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    Channel,
    Compressor,
    all_gather,
    error_feedback,
    exact,
    gmc,
    join_channels,
    local_sgd,
    random_block,
    scaled_sign,
    slowmo,
    top_k,
    topologies,
)
from gmc_jax.utils.call_repr import call_repr

CHANNEL = all_gather(top_k(0.01))


class Pair(NamedTuple):
    """A pair that pickles, as functions in functions do not."""

    one: Any
    other: int


@call_repr
def pair(one: Any, other: int = 2) -> Pair:
    """Makes a pair."""
    return Pair(one, other)


def own_schedule(step):
    return 0.1 / (1 + step)


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (top_k(0.01), "top_k(0.01)"),
        (scaled_sign(), "scaled_sign()"),
        (CHANNEL, "all_gather(top_k(0.01))"),
        (
            all_gather(compressor=top_k(ratio=0.5), per_leaf=True, seed=0),
            "all_gather(compressor=top_k(ratio=0.5), per_leaf=True)",
        ),
        (
            join_channels([exact(), CHANNEL], [100]),
            "join_channels([exact(), all_gather(top_k(0.01))], [100])",
        ),
        (gmc(0.1, CHANNEL, momentum=0.9), "gmc(0.1, all_gather(top_k(0.01)))"),
        (
            gmc(optax.cosine_decay_schedule(0.1, 9), exact(), momentum=0.5),
            "gmc(optax.cosine_decay_schedule(...), exact(), momentum=0.5)",
        ),
        (gmc_jax.dmsgd(own_schedule, exact()), "dmsgd(own_schedule, exact())"),
        (
            gmc_jax.dmsgd(functools.partial(own_schedule), exact()),
            "dmsgd(partial(own_schedule, ...), exact())",
        ),
        (gmc_jax.ef_sgd(jnp.float32(0.1), exact()), "ef_sgd(0.1, exact())"),
        (
            slowmo(optax.adam(1e-3), exact(), buffers=gmc_jax.reset_buffers()),
            "slowmo(optax.chain(...), exact(), buffers=reset_buffers())",
        ),
        (
            gmc_jax.d_psgd(0.1, topologies.lazy(topologies.ring(8))),
            "d_psgd(0.1, lazy(ring(8)))",
        ),
        (topologies.from_adjacency(np.ones((9, 9))), "from_adjacency(<float64[9, 9]>)"),
        (topologies.Topology((np.eye(2),)), "<Topology of 2 workers, 1 rounds>"),
        (
            local_sgd(0.1, exact(), period=lambda step: 2),
            "local_sgd(0.1, exact(), period=<lambda>)",
        ),
        (gmc_jax.sign_sgd(0.1, gmc_jax.majority_vote()), None),
        (pair((1,) * 8), "pair((1, 1, 1, 1, 1, 1, ...))"),
    ],
    ids=str,
)
def test_an_object_prints_as_the_call_that_made_it(thing, text):
    assert repr(thing) == (text or "sign_sgd(0.1, majority_vote())")


def test_errors_show_the_call():
    method: Any = gmc(0.1, exact())
    channel: Any = exact()
    with pytest.raises(
        TypeError, match=r"got the transformation `gmc\(0.1, exact\(\)\)`"
    ):
        error_feedback(method)
    with pytest.raises(TypeError, match=r"got the channel `exact\(\)`"):
        all_gather(channel)


def test_traced_arguments_print_their_types():
    seen = []

    def trace(rate):
        seen.append(repr(gmc(rate, exact())))
        return rate

    jax.eval_shape(trace, 0.1)
    assert seen == ["gmc(<traced float32[]>, exact())"]


def test_objects_that_show_their_call_behave_as_before():
    plain = Channel(*CHANNEL)
    assert isinstance(CHANNEL, Channel)
    assert plain == CHANNEL
    assert hash(CHANNEL) == hash(plain)
    assert jax.tree.map(lambda field: field, CHANNEL) == plain
    init, average, *_ = CHANNEL
    assert (init, average) == (CHANNEL.init, CHANNEL.average)
    assert isinstance(gmc(0.1, CHANNEL), optax.GradientTransformationExtraArgs)
    assert gmc(0.1, CHANNEL)._fields == ("init", "update")
    assert topologies.ring(3) != topologies.ring(3)


def test_derived_objects_lose_the_call():
    """A description that no longer holds would be worse than none."""
    other = CHANNEL._replace(bits=lambda tree: 7)
    assert isinstance(other, Channel)
    assert repr(other).startswith("Channel(init=<function")
    assert other.bits(()) == 7
    assert repr(random_block(0.1)._replace(shared=False)).startswith("Compressor(")
    own = Compressor(lambda key, x: (x, x), lambda key, messages, d: messages)
    assert repr(own).startswith("Compressor(encode=<function")
    assert "encode" not in repr(all_gather(own))


def test_copies_and_pickles_keep_the_call():
    for same in (copy.copy(CHANNEL), copy.deepcopy(CHANNEL)):
        assert repr(same) == repr(CHANNEL)
        assert same == CHANNEL
    assert repr(pickle.loads(pickle.dumps(pair(1, other=3)))) == "pair(1, other=3)"
    assert repr(pickle.loads(pickle.dumps(pair(1)._replace(one=5)))) == (
        "Pair(one=5, other=2)"
    )
    assert repr(copy.copy(topologies.ring(3))) == "ring(3)"


def test_a_factory_keeps_its_signature_and_its_documentation():
    assert list(inspect.signature(gmc).parameters) == [
        "learning_rate",
        "channel",
        "momentum",
    ]
    assert inspect.signature(gmc, eval_str=True).return_annotation is (
        optax.GradientTransformationExtraArgs
    )
    assert get_type_hints(all_gather)["compressor"] is Compressor
    assert (gmc.__name__, gmc.__module__) == ("gmc", "gmc_jax.methods.gmc")
    assert "Algorithm 1" in (gmc.__doc__ or "")
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'ratoi'"):
        top_k(**{"ratoi": 0.1})


KINDS = (
    Channel,
    Compressor,
    gmc_jax.Asynchronous,
    gmc_jax.Buffers,
    gmc_jax.Topology,
    optax.GradientTransformationExtraArgs,
)


def test_all_public_factories_show_their_call():
    factories = [getattr(gmc_jax, name) for name in gmc_jax.__all__]
    factories += [getattr(topologies, name) for name in vars(topologies)]
    missing = [
        factory.__name__
        for factory in factories
        if inspect.isfunction(factory)
        and not factory.__name__.startswith("_")
        and inspect.signature(factory, eval_str=True).return_annotation in KINDS
        and not hasattr(factory, "__wrapped__")
    ]
    assert missing == []
