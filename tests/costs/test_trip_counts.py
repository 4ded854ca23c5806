"""Tests of the rounds of loops, where the program does not print their number."""

import re

import pytest

from gmc_jax.costs.hlo import collectives
from gmc_jax.costs.hlo_text import modules
from gmc_jax.costs.trip_counts import trip_count

# A `fori_loop(3, 9)` around a mean, as it is compiled for TPUs. Metadata and some
# configurations are left out.
TPU = """\
HloModule jit_f, is_scheduled=true, num_partitions=8

%region_1.0 (psum.8: f32[], psum.9: f32[]) -> f32[] {
  %psum.9 = f32[]{:T(128)} parameter(1)
  %psum.8 = f32[]{:T(128)} parameter(0)
  ROOT %add.17 = f32[]{:T(128)} add(%psum.8, %psum.9)
}

%wide.region_0.2_spmd.sunk (wide.param.2: (s32[], f32[1,1000], s32[])) ->\
 (s32[], f32[1,1000], s32[]) {
  %constant.19.clone.1..sunk = s32[]{:T(128)} constant(1)
  %wide.param.2 = (s32[]{:T(128)}, f32[1,1000]{1,0:T(1,128)S(1)}, s32[]{:T(128)})\
 parameter(0)
  %get-tuple-element.73 = s32[]{:T(128)} get-tuple-element(%wide.param.2), index=0
  %copy.4 = s32[]{:T(128)S(6)} copy(%get-tuple-element.73)
  %add.24 = s32[]{:T(128)} add(%copy.4, %constant.19.clone.1..sunk),\
 backend_config={"flag_configs":[],"aliasing_operands":{"lists":[{"indices":["0"]}]}}
  %get-tuple-element.79 = s32[]{:T(128)} get-tuple-element(%wide.param.2), index=2
  %get-tuple-element.74 = f32[1,1000]{1,0:T(1,128)S(1)}\
 get-tuple-element(%wide.param.2), index=1
  %psum.13 = f32[1,1000]{1,0:T(1,128)S(1)} all-reduce(%get-tuple-element.74),\
 channel_id=1, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%region_1.0
  ROOT %tuple.29 = (s32[]{:T(128)}, f32[1,1000]{1,0:T(1,128)S(1)}, s32[]{:T(128)})\
 tuple(%add.24, %psum.13, %get-tuple-element.79)
}

%wide.region_2.3_spmd (wide.param.1: (s32[], f32[1,1000], s32[])) -> pred[] {
  %constant.22.clone.1 = s32[]{:T(128)} constant(9)
  %wide.param.1 = (s32[]{:T(128)}, f32[1,1000]{1,0:T(1,128)S(1)}, s32[]{:T(128)})\
 parameter(0)
  %get-tuple-element.58 = s32[]{:T(128)} get-tuple-element(%wide.param.1), index=0
  ROOT %lt.5 = pred[]{:T(512)} compare(%get-tuple-element.58, %constant.22.clone.1),\
 direction=LT, backend_config={"flag_configs":[]}
}

ENTRY %main.5_spmd (param.3: f32[1,1000]) -> f32[1,1000] {
  %constant.23.clone.1 = s32[]{:T(128)} constant(3)
  %constant.19.clone.1 = s32[]{:T(128)} constant(1)
  %param.3 = f32[1,1000]{1,0:T(1,128)} parameter(0), sharding={devices=[8,1]<=[8]}
  %copy.11 = s32[]{:T(128)} copy(%constant.23.clone.1)
  %tuple.31 = (s32[]{:T(128)}, f32[1,1000]{1,0:T(1,128)S(1)}, s32[]{:T(128)})\
 tuple(%copy.11, %param.3, %constant.19.clone.1)
  %while.13 = (s32[]{:T(128)}, f32[1,1000]{1,0:T(1,128)S(1)}, s32[]{:T(128)})\
 while(%tuple.31), condition=%wide.region_2.3_spmd, body=%wide.region_0.2_spmd.sunk
  ROOT %get-tuple-element.81 = f32[1,1000]{1,0:T(1,128)} get-tuple-element(%while.13),\
 index=1
}
"""


def test_a_loop_for_tpus_counts_all_its_rounds():
    assert collectives(TPU) == (24000, 24000, (("all-reduce", 4000, False, 6),))


def rounds(text):
    (program,) = modules(text)
    found = [
        trip_count(line, name, program)
        for name, computation in program.items()
        for line in computation.instructions
        if line.opcode == "while"
    ]
    (only,) = found
    return only


def counting(start, step, direction, bound):
    """The loop with another counter: while it is in `direction` of `bound`."""
    numbers = {"23.clone.1": start, "19.clone.1..sunk": step, "22.clone.1": bound}
    text = TPU.replace("direction=LT", f"direction={direction}")
    for name, number in numbers.items():
        line = f"%constant.{name} = s32[]{{:T(128)}} constant"
        text = re.sub(re.escape(line) + r"\(\d+\)", f"{line}({number})", text)
    return text


@pytest.mark.parametrize("direction", ["LT", "LE", "GT", "GE", "NE"])
def test_rounds_are_those_of_the_loop(direction):
    holds = {
        "LT": lambda x, bound: x < bound,
        "LE": lambda x, bound: x <= bound,
        "GT": lambda x, bound: x > bound,
        "GE": lambda x, bound: x >= bound,
        "NE": lambda x, bound: x != bound,
    }[direction]
    for start, step, bound in (
        *[(3, 1, 9), (3, 2, 9), (3, 4, 9), (9, 1, 3), (3, 1, 3), (0, 3, 8)],
        *[(9, -1, 3), (9, -2, 3), (9, -5, 2), (3, -1, 9), (-2, 1, 2), (5, 0, 7)],
    ):
        value, expected = start, 0
        while expected is not None and holds(value, bound):
            value, expected = value + step, expected + 1
            expected = expected if expected < 100 else None
        assert rounds(counting(start, step, direction, bound)) == expected


def test_the_bound_may_stand_on_the_left():
    text = re.sub(
        r"compare\((\S+), (\S+)\),(\s+)direction=LT",
        r"compare(\2, \1),\3direction=GT",
        TPU,
    )
    assert text != TPU
    assert rounds(text) == 6


def test_comparison_and_step_may_stand_in_fusions():
    fused = """
%fused_compare (p.0: s32[], p.1: s32[]) -> pred[] {
  %p.0 = s32[] parameter(0)
  %p.1 = s32[] parameter(1)
  ROOT %compare.1 = pred[] compare(%p.1, %p.0), direction=GT
}

%fused_step (p.2: s32[]) -> s32[] {
  %p.2 = s32[] parameter(0)
  %one = s32[] constant(1)
  ROOT %sum.2 = s32[] add(%one, %p.2)
}

ENTRY"""
    text = re.sub(
        r"compare\((\S+), (\S+)\),(\s+)direction=LT",
        r"fusion(\1, \2), kind=kLoop, calls=%fused_compare",
        TPU,
    )
    text = text.replace(
        "add(%copy.4, %constant.19.clone.1..sunk)",
        "fusion(%copy.4), kind=kLoop, calls=%fused_step",
    )
    text = text.replace("\nENTRY", fused)
    assert text.count("fusion(") == 2
    assert rounds(text) == 6


@pytest.mark.parametrize(
    ("old", "new"),
    {
        "start": ("copy(%constant.23.clone.1)", "parameter(1)"),
        "float": (
            "%constant.22.clone.1 = s32[]{:T(128)} constant(9)",
            "%constant.22.clone.1 = f32[]{:T(128)} constant(9)",
        ),
        "step": ("add(%copy.4, %constant.19.clone.1..sunk)", "add(%copy.4, %copy.4)"),
        "away": ("constant.19.clone.1..sunk)", "get-tuple-element.79)"),
        "product": ("add(%copy.4", "multiply(%copy.4"),
        "moves": ("tuple(%add.24, %psum.13", "tuple(%get-tuple-element.79, %psum.13"),
        "other": ("ROOT %lt.5 = pred[]{:T(512)} compare", "ROOT %lt.5 = pred[] custom"),
    }.values(),
)
def test_where_the_program_does_not_tell_the_number_is_none(old, new):
    text = TPU.replace(old, new)
    assert text != TPU
    assert rounds(text) is None
