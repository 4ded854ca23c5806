"""Tests of how the lines of a compiled program are read."""

import pytest

from gmc_jax.costs.hlo_text import called, modules, size_of
from tests.support.hlo_text import program, reducing


@pytest.mark.parametrize(
    ("shape", "size"),
    {
        "f32[]": 4,
        "f32[2,3]{1,0:T(8,128)S(1)}": 24,
        "(s32[8]{0}, /*index=1*/bf16[3])": 38,
        "pred[5]": 5,
        "s4[3]": 2,
        "f8e4m3fn[7]{0}": 7,
        "((f32[1]{0}), u32[]{:S(2)}, token[])": 8,
        "f32[<=10]": 40,
    }.items(),
)
def test_the_size_of_a_shape(shape, size):
    assert size_of(shape) == size


def test_computations_and_instructions():
    body = """
        %p = (s32[]{:T(128)}, /*index=1*/f32[3]{0}) parameter(0)
        %x = f32[3]{0} get-tuple-element((s32[], f32[3]{0}) %p), index=1
        ROOT %w = (f32[3], f32[3]) call(f32[3] %x, /*index=1*/%x), to_apply=%sum.1
        """
    (computations,) = modules(program(body, reducing("sum.1", 3)))
    assert list(computations) == ["add", "sum.1", "main.7_spmd"]
    assert [one.is_entry for one in computations.values()] == [False, False, True]
    p, x, w = computations["main.7_spmd"].instructions
    assert (p.opcode, p.operands, p.shape.count("[")) == ("parameter", ["0"], 2)
    assert (x.name, x.operands) == ("x", ["p"])
    assert (w.operands, w.is_root, p.is_root) == (["x", "x"], True, False)
    assert called(w, "calls", "to_apply") == ["sum.1"]


def test_called_computations_may_stand_in_braces():
    body = "ROOT %c = f32[] conditional(%p, %p, %p), branch_computations={%one, %two.3}"
    (computations,) = modules(program(body))
    (line,) = computations["main.7_spmd"].instructions
    assert called(line, "branch_computations") == ["one", "two.3"]
    assert called(line, "body") == []
