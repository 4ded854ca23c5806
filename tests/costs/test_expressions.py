"""Every Python expression of a plan makes a method that sends the planned bytes."""

import jax
import optax
import pytest

import gmc_jax
from gmc_jax.costs.candidates import candidates, never_meeting
from gmc_jax.costs.compression_cost import CPU_2_CORES
from gmc_jax.costs.expressions import TEMPLATES, written
from gmc_jax.costs.patterns import DENSE, Pattern

# Four equal layers, for Streaming DiLoCo, of matrices, for PowerSGD.
LAYERS = {
    f"layer_{i}": {"kernel": jax.ShapeDtypeStruct((32, 32), "float32")}
    for i in range(4)
}
FLOAT = 32
# What a message holds besides what is planned, in bits. In `two_phase` each slice has
# a scale, of which the worker sends one more; push-sum sends a weight with each leaf.
BESIDES = {
    "scaled_sign both ways": -FLOAT,
    "SGP, one peer, delay 1": 4 * FLOAT,
}


def planned(optimizer: str, ratios=(0.01,)) -> list[Pattern]:
    rows = candidates(LAYERS, 2, ratios, [12], CPU_2_CORES, optimizer)
    return [*rows, never_meeting(300, optimizer)]


def makes_what_is_planned(pattern: Pattern) -> bool:
    """Whether a worker of two sends what its link carries: each message once."""
    names = {"gmc_jax": gmc_jax, "optax": optax, "rate": 0.1}
    tx = eval(pattern.expression, names)
    assert isinstance(tx, optax.GradientTransformation)
    mean, _ = pattern.loads(LAYERS, 2)
    besides = sum(bits for end, bits in BESIDES.items() if pattern.name.endswith(end))
    sent = gmc_jax.message_bits(tx, LAYERS)
    return sent == pytest.approx(8 * mean.traffic.bytes + besides, rel=1e-9)


@pytest.mark.parametrize("optimizer", TEMPLATES)
def test_expressions_of_some_patterns_send_what_is_planned(optimizer):
    some = (", top_k", "random_block every 12", "ring")
    rows = [row for row in planned(optimizer) if row.name.endswith(some)]
    assert len(rows) == 3
    assert all(map(makes_what_is_planned, rows))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", TEMPLATES)
def test_every_expression_sends_what_is_planned(optimizer):
    for row in planned(optimizer):
        assert makes_what_is_planned(row), row.name


def test_an_expression_of_another_ratio_is_noticed():
    rows = planned("sgd", [0.1, 0.01])
    one, other = (row for row in rows if row.name == "GMC, top_k")
    mixed = Pattern(one.name, one.syncs, one.ratio, expression=other.expression)
    assert not makes_what_is_planned(mixed)


def test_expressions_as_they_are_printed():
    rows = {(row.name, row.ratio): row.expression for row in planned("sgd")}
    blocks = "gmc_jax.all_reduce(gmc_jax.random_block(0.01))"
    assert rows["GMC, random_block", 0.01] == (
        f"gmc_jax.gmc_plus(rate, {blocks}, detach=0.3)"
    )
    late = gmc_jax.all_gather(gmc_jax.top_k(0.5), per_leaf=True, delay=1)
    assert written(late) == (
        "gmc_jax.all_gather(gmc_jax.top_k(0.5), per_leaf=True, delay=1)"
    )
    assert rows["dense all-reduce", None] == DENSE.expression


@pytest.mark.slow
def test_plans_over_both_optimizers_load_the_link_equally():
    """The methods differ, the patterns do not; CSER is momentum SGD's alone."""
    loads = {
        optimizer: [
            row.loads(LAYERS, 2)
            for row in planned(optimizer)
            if not row.name.startswith("CSER")
        ]
        for optimizer in TEMPLATES
    }
    assert loads["sgd"] == loads["adam"]
