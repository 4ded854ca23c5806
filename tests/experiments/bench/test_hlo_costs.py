"""Tests of what programs do to memory, on texts and on programs of this machine."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from experiments.bench.hlo_costs import costs
from tests.support.hlo_text import program

# Entries of the vectors; an entry has four bytes.
N = 4096


def moved(body, *computations):
    return costs(program(body, *computations)).moved


def test_instructions_read_their_operands_and_write_their_results():
    body = """
        %p = f32[4096]{0} parameter(0)
        %b = f32[64,64]{1,0} bitcast(%p)
        %n = f32[4096]{0} negate(%p)
        %s = f32[4096]{0} add(%n, %n)
        ROOT %t = (f32[4096]{0}, f32[64,64]{1,0}) tuple(%s, %b)
        """
    assert moved(body) == 4 * (2 * N + 2 * N)


def test_what_starts_and_ends_counts_once():
    body = """
        %p = f32[4096]{0} parameter(0)
        %c = (f32[4096]{0:S(1)}, f32[4096]{0}, u32[]{:S(2)}) copy-start(%p)
        %d = f32[4096]{0:S(1)} copy-done(%c)
        %g = (f32[4096]{0}, f32[8,4096]{1,0}) all-gather-start(%d), dimensions={0}
        ROOT %e = f32[8,4096]{1,0} all-gather-done(%g)
        """
    assert moved(body) == 4 * (2 * N + 1 + 9 * N)


def test_slices_are_copied_and_joined_in_place():
    body = """
        %p = f32[4096]{0} parameter(0)
        %a = ((f32[4096]{0}), f32[2048]{0:S(1)}, s32[]{:S(2)}) slice-start(%p)
        %b = f32[2048]{0:S(1)} slice-done(%a)
        %c = ((f32[4096]{0}), f32[2048]{0:S(1)}, s32[]{:S(2)}) slice-start(%p)
        %d = f32[2048]{0:S(1)} slice-done(%c)
        ROOT %e = f32[4096]{0:S(1)} custom-call(%b, %d), \
custom_call_target="ConcatBitcast"
        """
    # The handle of each copy counts twice too.
    assert moved(body) == 4 * (2 * N + 2 * 2)


def test_a_fusion_of_several_results_reads_its_operands():
    """What it only computes results from is read, what it passes on is not."""
    fused = """
        %several (a: f32[4096], b: f32[4096]) -> (f32[4096], f32[4096], f32[64,64]) {
          %a = f32[4096]{0} parameter(0)
          %b = f32[4096]{0} parameter(1)
          %n = f32[4096]{0} negate(%a)
          %s = f32[4096]{0} add(%a, %b)
          %r = f32[64,64]{1,0} bitcast(%s)
          ROOT %t = (f32[4096]{0}, f32[4096]{0}, f32[64,64]{1,0}) tuple(%n, %s, %r)
        }
        """
    body = """
        %p = f32[4096]{0} parameter(0)
        %q = f32[4096]{0} parameter(1)
        ROOT %f = (f32[4096]{0}, f32[4096]{0}, f32[64,64]{1,0}) fusion(%p, %q), \
kind=kLoop, calls=%several
        """
    assert moved(body, fused) == 4 * (2 * N + 3 * N)


FUSED = """
%fused (a: f32[4096], i: s32[16,1], u: f32[16]) -> f32[4096] {
  %a = f32[4096]{0} parameter(0)
  %i = s32[16,1]{1,0} parameter(1)
  %u = f32[16]{0} parameter(2)
  %double = f32[16]{0} add(%u, %u)
  ROOT %s = f32[4096]{0} scatter(%a, %i, %double), to_apply=%add, unique_indices=true
}
"""
SCATTER = """
        %p = f32[4096]{0} parameter(0)
        %i = s32[16,1]{1,0} parameter(1)
        %u = f32[16]{0} parameter(2)
        ROOT %f = f32[4096]{0} fusion(%p, %i, %u), kind=kInput, calls=%fused
        """


def test_what_is_written_in_place_counts_with_the_updates():
    """The updates and their places are read, and the entries read and written."""
    found = costs(program(SCATTER, FUSED))
    assert found.moved == 4 * (16 + 16 + 2 * 16)
    assert found.scatters == ((N, 1, True),)
    # What is computed first is written as a whole.
    computed = FUSED.replace("%double =", "%c = f32[4096]{0} negate(%a)\n  %double =")
    computed = computed.replace("scatter(%a", "scatter(%c")
    assert costs(program(SCATTER, computed)).moved == 4 * (N + 16 + 16 + N)


def test_what_is_taken_from_a_vector_counts_alone():
    fused = """
%fused (a: f32[4096], i: s32[]) -> f32[16] {
  %a = f32[4096]{0} parameter(0)
  %i = s32[] parameter(1)
  %flat = f32[4096]{0} bitcast(%a)
  ROOT %s = f32[16]{0} dynamic-slice(%flat, %i), dynamic_slice_sizes={16}
}
"""
    body = """
        %p = f32[4096]{0} parameter(0)
        %i = s32[] parameter(1)
        ROOT %f = f32[16]{0} fusion(%p, %i), kind=kLoop, calls=%fused
        """
    assert moved(body, fused) == 4 * (16 + 1 + 16)
    worked_on = fused.replace("bitcast(%a)", "negate(%a)")
    assert moved(body, worked_on) == 4 * (16 + 1 + 16)
    also_whole = fused.replace("  %flat", "  %all = f32[] reduce(%a, %a)\n  %flat")
    assert moved(body, also_whole) == 4 * (N + 1 + 16)


def test_a_loop_counts_its_rounds_and_a_conditional_its_larger_branch():
    inner = """
%body (q: f32[4096]) -> f32[4096] {
  %q = f32[4096]{0} parameter(0)
  %sort.1 = f32[4096]{0} sort(%q), dimensions={0}, to_apply=%less
  ROOT %r = f32[4096]{0} negate(%sort.1)
}

%idle (q: f32[4096]) -> f32[4096] {
  ROOT %q = f32[4096]{0} parameter(0)
}
"""
    loop = (
        "%w = f32[4096]{0} while(%p), condition=%idle, body=%body, "
        'backend_config={"known_trip_count":{"n":"5"}}'
    )
    found = costs(program(f"%p = f32[4096]{{0}} parameter(0)\n{loop}", inner))
    assert found.moved == 5 * 4 * 4 * N
    assert found.sorts == ((N, 5, True),)
    lines = "%q = f32[4096]{0} parameter(0)\n  ROOT " + loop.replace("%p", "%q")
    outer = f"%outer (q: f32[4096]) -> f32[4096] {{\n  {lines}\n}}"
    twice = loop.replace("%body", "%outer")
    found = costs(program(f"%p = f32[4096]{{0}} parameter(0)\n{twice}", inner, outer))
    assert found.moved == 25 * 4 * 4 * N
    assert found.sorts == ((N, 25, True),)
    branches = (
        "%c = f32[4096]{0} conditional(%p, %p), branch_computations={%idle,%body}"
    )
    assert moved(branches, inner) == 4 * 4 * N


def test_donated_arguments_are_counted():
    text = program("%p = f32[] parameter(0)").replace(
        "is_scheduled=true",
        "is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), {1}: "
        "(3, {}, must-alias) }",
    )
    assert costs(text).aliased == 2


@pytest.mark.parametrize("select", [jnp.sort, lambda x: lax.top_k(x, 8)[0]])
def test_a_selection_by_sorting_is_found_in_a_real_program(select):
    text = jax.jit(select).lower(jnp.zeros(N)).compile().as_text() or ""
    assert [one.times for one in costs(text).sorts] == [1]
    assert costs(text).moved >= 4 * N
