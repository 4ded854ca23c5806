"""Every factory that wraps a part, given a part of another kind.

The factory itself refuses it, before a state or a step is made, and says what to write.
"""

import inspect
from typing import NamedTuple

import optax
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    averaged,
    error_feedback,
    exact,
    global_momentum,
    random_block,
    top_k,
    topologies,
)
from gmc_jax.core import Tree
from tests.support.factories import RIGHT, found


class Noun(NamedTuple):
    """A kind of part: its class, how errors ask for it, and one that is given."""

    kind: type
    wanted: str
    part: Tree
    shown: str


NOUNS = {
    "compressor": Noun(
        gmc_jax.Compressor, "a compressor", top_k(0.01), "the compressor `top_k(0.01)`"
    ),
    "channel": Noun(
        gmc_jax.Channel,
        "a channel",
        all_gather(top_k(0.01)),
        "the channel `all_gather(top_k(0.01))`",
    ),
    "transformation": Noun(
        optax.GradientTransformation,
        "an optax transformation",
        error_feedback(exact()),
        "the transformation `error_feedback(exact())`",
    ),
}
WRAPPED = "all_gather(top_k(0.01))"
TRANSFORMATION = f"write `error_feedback({WRAPPED})`, or `averaged({WRAPPED})`"
ALONE = "write its compressor alone, such as `top_k(0.01)`"
REMEDIES = {  # What is wanted, and what is given.
    ("transformation", "channel"): TRANSFORMATION,
    ("transformation", "compressor"): TRANSFORMATION,
    ("channel", "compressor"): f"write `{WRAPPED}`",
    ("channel", "transformation"): f"write its channel alone, such as `{WRAPPED}`",
    ("compressor", "channel"): ALONE,
    ("compressor", "transformation"): ALONE,
}


def wrapping() -> list[tuple[str, str, str]]:
    """The factory, the argument, and the noun of all that wrap a part."""
    nouns = {noun.kind: name for name, noun in NOUNS.items()}
    return [
        (factory, argument, nouns[kind])
        for factory in RIGHT
        for argument, kind in inspect.get_annotations(
            found(factory), eval_str=True
        ).items()
        if kind in nouns and argument != "return"
    ]


every_wrapping = pytest.mark.parametrize(("name", "argument", "wanted"), wrapping())


@every_wrapping
def test_a_part_of_another_kind_is_refused_at_once(name, argument, wanted):
    for given, noun in NOUNS.items():
        if given == wanted:
            continue
        with pytest.raises(TypeError) as refused:
            found(name)(**RIGHT[name] | {argument: noun.part})
        assert str(refused.value) == (
            f"`{argument}` must be {NOUNS[wanted].wanted}, got {noun.shown}; "
            f"{REMEDIES[wanted, given]}."
        )


TRANSFORMS = [
    (name, argument)
    for name, argument, _ in wrapping()
    if ".transforms." in found(name).__module__
]


@pytest.mark.parametrize(("name", "argument"), TRANSFORMS)
def test_a_transform_checks_first_what_it_wraps(name, argument):
    """So the error is about the part, whatever else is wrong in the call."""
    nothing = dict.fromkeys(RIGHT[name], None)
    others = {other for _, other in filter(lambda one: one[0] == name, TRANSFORMS)}
    right = {other: RIGHT[name][other] for other in others}
    with pytest.raises(TypeError, match=f"`{argument}` must be"):
        found(name)(**nothing | right | {argument: None})


def test_the_tables_hold_what_wraps():
    assert {"inner", "outer", "channel", "reset_channel", "compressor"} <= {
        argument for _, argument, _ in wrapping()
    }
    assert len(TRANSFORMS) > 20


def test_the_error_spells_out_what_to_write():
    part: Tree = all_gather(top_k(0.01))
    with pytest.raises(TypeError) as refused:
        global_momentum(part, 0.9)
    assert str(refused.value) == (
        "`inner` must be an optax transformation, got the channel "
        "`all_gather(top_k(0.01))`; write `error_feedback(all_gather(top_k(0.01)))`, "
        "or `averaged(all_gather(top_k(0.01)))`."
    )


@pytest.mark.parametrize(
    ("factory", "part", "message"),
    [
        (averaged, random_block(0.5), "write `all_reduce(random_block(0.5))`"),
        (
            averaged,
            top_k(0.5)._replace(linear=False),
            "got a compressor; write `all_gather(compressor)`",
        ),
        (
            gmc_jax.with_float32_state,
            exact()._replace(),
            "got a channel; write `error_feedback(channel)`",
        ),
        (averaged, optax.sgd(0.1), "got a transformation; write its channel alone"),
        (averaged, topologies.ring(3), "got ring(3); write `exact()`"),
        (averaged, gmc_jax.reset_buffers(), "got reset_buffers(); write `exact()`"),
        (averaged, exact, "got <function .*; write `exact()`"),
        (gmc_jax.with_float32_state, optax.sgd, "got <function .*; write `optax.sgd("),
        (all_gather, None, "got None; write `top_k(0.01)`"),
    ],
)
def test_parts_without_a_name_and_other_things(factory, part, message):
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(TypeError, match=pattern):
        factory(part)
