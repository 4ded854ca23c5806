"""How many rounds the loops of a compiled program run.

XLA prints the number beside a loop for CPUs and GPUs. For TPUs it does not. There the
number follows from a counter: one entry of the loop's tuple starts as a constant, the
body adds a constant to it, and the condition compares it with a constant. The compiler
moves such constants through copies, tuples, calls and fusions.
"""

import math
import re
from typing import NamedTuple

from gmc_jax.costs.hlo_text import Computations, Instruction, called

_SAME = ("bitcast", "convert", "copy", "copy-done", "copy-start", "reshape")
_SIGNS = {"add": 1, "subtract": -1}
_MIRRORED = {"LT": "GT", "LE": "GE", "GT": "LT", "GE": "LE", "NE": "NE"}


class _Scalar(NamedTuple):
    """An integer: a constant, or an entry of a loop's tuple plus a constant."""

    entry: int | None
    constant: int


class _Values:
    """The instructions of a computation as integers, where they are such."""

    def __init__(
        self, name: str, computations: Computations, given: list["_Scalar | None"]
    ) -> None:
        """Takes the values of the parameters; none if the one parameter is a tuple."""
        self._computations = computations
        self._given = given
        lines = computations[name].instructions
        self._lines = {line.name: line for line in lines}
        self.root = next((line for line in lines if line.is_root), lines[-1])

    def of(self, name: str) -> _Scalar | None:
        """The value of an instruction; None if it is no such integer."""
        line = self._lines[name]
        if line.opcode in _SAME:
            return self.of(line.operands[0])
        if line.opcode == "constant":
            is_integer = re.fullmatch(r"[su]\d+\[\].*", line.shape)
            return _Scalar(None, int(line.operands[0])) if is_integer else None
        if line.opcode == "parameter":
            place = int(line.operands[0])
            return self._given[place] if place < len(self._given) else None
        if line.opcode == "get-tuple-element":
            return self.entry(line.operands[0], _index(line))
        if line.opcode in _SIGNS:
            one, two = (self.of(operand) for operand in line.operands)
            return _plus(one, two, _SIGNS[line.opcode])
        if line.opcode in ("call", "fusion"):
            inner = self.inside(line)
            return inner.of(inner.root.name)
        return None

    def entry(self, name: str, index: int) -> _Scalar | None:
        """The value of an entry of a tuple."""
        line = self._lines[name]
        if line.opcode == "tuple":
            return self.of(line.operands[index])
        if line.opcode == "parameter" and not self._given:
            return _Scalar(index, 0)
        if line.opcode in ("call", "fusion"):
            inner = self.inside(line)
            return inner.entry(inner.root.name, index)
        return None

    def inside(self, line: Instruction) -> "_Values":
        """The computation that a call or a fusion runs, on its operands."""
        (name,) = called(line, "calls", "to_apply")
        given = [self.of(operand) for operand in line.operands]
        return _Values(name, self._computations, given)


def trip_count(
    loop: Instruction, caller: str, computations: Computations
) -> int | None:
    """How many rounds a loop runs.

    Args:
      loop: a `while` instruction.
      caller: the name of the computation that it stands in.
      computations: of its module.

    Returns:
      The number, or None if the program does not tell it.
    """
    match = re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes)
    if match:
        return int(match[1])
    (condition,), (body,) = called(loop, "condition"), called(loop, "body")
    asked = _Values(condition, computations, [])
    compare = asked.root
    while compare.opcode in ("call", "fusion"):
        asked = asked.inside(compare)
        compare = asked.root
    if compare.opcode != "compare":
        return None
    left, right = (asked.of(operand) for operand in compare.operands)
    direction = _direction(compare)
    if left is None or right is None or direction not in _MIRRORED:
        return None
    if left.entry is None:
        left, right, direction = right, left, _MIRRORED[direction]
    if left.entry is None or right.entry is not None:
        return None
    outside = _Values(caller, computations, [])
    inside = _Values(body, computations, [])
    start = outside.entry(loop.operands[0], left.entry)
    after = inside.entry(inside.root.name, left.entry)
    if start is None or start.entry is not None:
        return None
    if after is None or after.entry != left.entry:
        return None
    distance = right.constant - (start.constant + left.constant)
    return _rounds(distance, after.constant, direction)


def _rounds(distance: int, step: int, direction: str) -> int | None:
    """The rounds of a counter that is so far from its bound, and moves by a step."""
    if direction in ("GT", "GE"):
        distance, step = -distance, -step
    if direction == "NE":
        whole = step and not distance % step and distance // step >= 0
        return distance // step if whole else None
    if direction in ("LE", "GE"):
        distance += 1
    if distance <= 0:
        return 0
    return math.ceil(distance / step) if step > 0 else None


def _plus(one: _Scalar | None, two: _Scalar | None, sign: int) -> _Scalar | None:
    if one is None or two is None:
        return None
    if two.entry is not None and (one.entry is not None or sign < 0):
        return None
    entry = two.entry if one.entry is None else one.entry
    return _Scalar(entry, one.constant + sign * two.constant)


def _index(line: Instruction) -> int:
    return int(re.findall(r"\bindex=(\d+)", line.attributes)[0])


def _direction(line: Instruction) -> str:
    return re.findall(r"\bdirection=(\w+)", line.attributes)[0]
