"""Tests of how conditionals and loops count in the text of a program."""

import pytest

from gmc_jax.costs.hlo import collectives
from tests.support.hlo_text import ADD, program, reducing

IDLE = """
%idle (q: f32[]) -> f32[] {
  ROOT %q = f32[] parameter(0)
}
"""


def conditional(*branches: str) -> str:
    named = ", ".join(branches)
    return f"""
        %p = s32[] parameter(0)
        ROOT %c = f32[] conditional(%p, %p), branch_computations={{{named}}}
        """


def loop(body: str, config: str = "") -> str:
    return f"%w = (s32[]) while(%t), condition=%idle, body={body}{config}"


def known(trips: int) -> str:
    return (
        ', backend_config={"known_induction_variable":{"tuple_index":"0"},'
        '"known_init_step":{"init":"0","step":"1"},'
        f'"known_trip_count":{{"n":"{trips}"}},"dynamic_variables":[]}}'
    )


def test_a_conditional_counts_the_branch_that_sends_most():
    cost = collectives(
        program(
            conditional("%small", "%large", "%idle"),
            reducing("small", 3),
            reducing("large", 7),
            IDLE,
        )
    )
    assert (cost.most, cost.always) == (28, 0)
    assert cost.collectives == (
        ("all-reduce", 12, True, 1),
        ("all-reduce", 28, True, 1),
    )


def test_a_conditional_on_a_predicate_has_two_branches():
    body = """
        %p = pred[] parameter(0)
        %v = f32[5]{0} parameter(1)
        %first = f32[5]{0} all-reduce(%v), replica_groups={{0,1}}, to_apply=%add
        ROOT %c = f32[] conditional(%p, %v, %v), true_computation=%small,\
 false_computation=%large
        """
    cost = collectives(program(body, reducing("small", 3), reducing("large", 7)))
    assert (cost.most, cost.always) == (20 + 28, 20)
    assert [one.conditional for one in cost.collectives] == [False, True, True]


TRIPS = {
    "as printed": known(10),
    "old": ', backend_config="{\\"known_trip_count\\":{\\"n\\":\\"10\\"}}"',
}


@pytest.mark.parametrize("config", TRIPS.values(), ids=TRIPS.keys())
def test_a_loop_counts_all_its_rounds(config):
    cost = collectives(program(loop("%body", config), reducing("body", 3), IDLE))
    assert cost == (120, 120, (("all-reduce", 12, False, 10),))


def test_a_loop_of_unknown_length_counts_one_round():
    cost = collectives(program(loop("%body"), reducing("body", 3), IDLE))
    assert cost == (12, 12, (("all-reduce", 12, False, None),))


def test_a_loop_may_send_in_its_condition():
    text = program(loop("%idle").replace("condition=%idle", "condition=%asks"))
    text = text.replace(ADD, ADD + reducing("asks", 1) + IDLE)
    assert collectives(text) == (4, 4, (("all-reduce", 4, False, None),))


def test_loops_and_conditionals_nest():
    """A known loop of a conditional of an unknown loop of a known loop."""
    branch = "%c = f32[] conditional(%p, %p), branch_computations={%middle, %idle}"
    cost = collectives(
        program(
            loop("%outer", known(5)),
            reducing("outer", 1, then=branch),
            reducing("middle", 2, then=loop("%inner")),
            reducing("inner", 3, then=loop("%innermost", known(7))),
            reducing("innermost", 4),
            IDLE,
        )
    )
    assert cost.most == 5 * (4 + (8 + (12 + 7 * 16)))
    assert cost.always == 5 * 4
    assert set(cost.collectives) == {
        ("all-reduce", 4, False, 5),
        ("all-reduce", 8, True, 5),
        ("all-reduce", 12, True, None),
        ("all-reduce", 16, True, None),
    }


def test_known_and_unknown_loops_nest_both_ways():
    """The bytes count the known rounds, even if the number of all is unknown."""
    for outer, inner in (("", known(7)), (known(7), "")):
        cost = collectives(
            program(
                loop("%outer", outer),
                reducing("outer", 1, then=loop("%inner", inner)),
                reducing("inner", 3),
                IDLE,
            )
        )
        assert cost.most == cost.always == (4 + 84 if not outer else 7 * (4 + 12))
