"""What a compiled program does to memory, counted in its text.

The bytes are those that the instructions of the entry computation read and write, in
loops times their rounds, and in the branch of a conditional that moves most. A fusion
reads its operands and writes its result. What is only sliced or gathered, perhaps after
work on each entry, counts with what is taken from it. What is updated in place, by a
scatter or a dynamic-update-slice, counts with the updates. Parameters, constants,
tuples and bitcasts move nothing. A sort counts as one reading and one writing, though
it makes several.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from gmc_jax.costs.hlo_text import (
    Computations,
    Instruction,
    called,
    modules,
    size_of,
)
from gmc_jax.costs.trip_counts import trip_count

_FREE = {
    "after-all",
    "bitcast",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
# A TPU so joins the slices of a vector that it has copied to where they belong.
_BITCAST = 'custom_call_target="ConcatBitcast"'
_SAME = {"bitcast", "reshape"}
_TAKE = {"dynamic-slice", "gather", "slice"}
_UPDATE = {"dynamic-update-slice", "scatter"}
_BY_ENTRY = {
    *("abs", "add", "and", "bitcast-convert", "compare", "convert", "copy", "divide"),
    *("maximum", "minimum", "multiply", "negate", "not", "or", "select", "subtract"),
    *("shift-left", "shift-right-arithmetic", "shift-right-logical", "sign", "xor"),
}


class Sized(NamedTuple):
    """A sort or a scatter.

    Attributes:
      entries: of the vector that is sorted, or that is written into.
      times: how often a call runs it; once in a loop of an unknown number of rounds.
      unique: whether no two updates of a scatter meet; True for a sort.
    """

    entries: int
    times: int
    unique: bool


class HloCosts(NamedTuple):
    """What a program does to memory.

    Attributes:
      moved: bytes that are read and written.
      sorts: all sorts, selections by sorting among them.
      scatters: all scatters.
      aliased: how many results take the place of an argument.
    """

    moved: int
    sorts: tuple[Sized, ...]
    scatters: tuple[Sized, ...]
    aliased: int


def costs(text: str) -> HloCosts:
    """Counts what a program of one module does to memory."""
    (program,) = modules(text)
    (entry,) = (name for name, one in program.items() if one.is_entry)
    found = list(_calls(entry, program, 1))
    header = text.partition("\n")[0]
    return HloCosts(
        _Memory(program).moved(entry),
        tuple(_sort(line, times) for line, times, _ in found if _is_sort(line)),
        tuple(
            _scatter(line, shapes, times)
            for line, times, shapes in found
            if line.opcode == "scatter"
        ),
        len(re.findall(r"(?:may|must)-alias", header)),
    )


class _Memory:
    """Counts bytes in the computations of a module."""

    def __init__(self, program: Computations) -> None:
        self._program = program
        self._known: dict[tuple[str, str, bool], int] = {}
        self._shapes = {
            name: {line.name: line.shape for line in computation.instructions}
            for name, computation in program.items()
        }

    def moved(self, name: str) -> int:
        """The bytes that the instructions of a computation move."""
        lines = self._program[name].instructions
        return sum(self._moved_by(line, name) for line in lines)

    def _moved_by(self, line: Instruction, caller: str) -> int:
        operation = line.opcode
        if operation in _FREE or operation.endswith(("-done", "-update")):
            return 0
        if operation == "while":
            rounds = trip_count(line, caller, self._program)
            inside = sum(map(self.moved, called(line, "body", "condition")))
            return (1 if rounds is None else rounds) * inside
        if operation == "conditional":
            kinds = "branch_computations", "true_computation", "false_computation"
            return max(map(self.moved, called(line, *kinds)), default=0)
        if operation in ("call", "async-start"):
            return sum(map(self.moved, called(line, "calls", "to_apply")))
        shapes = self._shapes[caller]
        if operation == "slice-start":
            # It holds the operand, of which it reads as much as it writes.
            given = sum(size_of(shapes[operand]) for operand in line.operands)
            return 2 * (size_of(line.shape) - given)
        if operation == "custom-call" and _BITCAST in line.attributes:
            return 0
        if operation.endswith("-start") and operation != "all-reduce-start":
            return size_of(line.shape)  # It holds the operands and the results.
        if operation == "fusion":
            (inner,) = called(line, "calls")
            return sum(
                self._read(inner, parameter)
                for parameter in self._program[inner].instructions
                if parameter.opcode == "parameter"
            ) + self._written(inner, _root(self._program, inner))
        operands = [
            size_of(shapes[operand]) for operand in dict.fromkeys(line.operands)
        ]
        if operation in _TAKE:
            return 2 * size_of(line.shape) + sum(operands[1:])
        if operation in _UPDATE:
            return _updated(line, shapes) + sum(operands[1:])
        return sum(operands) + size_of(line.shape)

    def _read(self, name: str, value: Instruction, is_given: bool = True) -> int:
        """The bytes of a value that the instructions of a fusion read.

        Args:
          name: of the fused computation.
          value: one of its instructions.
          is_given: whether it is a parameter, in another shape at most. What is
            computed is not updated in place.
        """
        key = name, value.name, is_given
        if key not in self._known:
            whole = size_of(value.shape)
            read = (
                self._read_by(name, value, line, place, is_given)
                for line in self._program[name].instructions
                if line.opcode not in ("constant", "parameter")
                for place, operand in enumerate(line.operands)
                if operand == value.name
            )
            self._known[key] = whole if value.is_root else min(sum(read), whole)
        return self._known[key]

    def _read_by(
        self, name: str, value: Instruction, line: Instruction, place: int, given: bool
    ) -> int:
        """The bytes of a value that one instruction of a fusion reads."""
        if line.opcode in _SAME | {"get-tuple-element", "tuple"}:
            if line.is_root:
                return 0 if given else size_of(value.shape)
            return self._read(name, line, given)
        if line.opcode in _TAKE and not place:
            return size_of(line.shape)
        if line.opcode in _UPDATE and not place and given:
            updated = _updated(line, self._shapes[name])
            return updated if line.opcode == "scatter" else 0
        if line.opcode == "fusion":
            (inner,) = called(line, "calls")
            parameter = _parameter(self._program, inner, place)
            return self._read(inner, parameter, given)
        whole = size_of(value.shape)
        if line.opcode in _BY_ENTRY and _entries(line.shape) == _entries(value.shape):
            taken = self._read(name, line, False)
            return whole * taken // max(1, size_of(line.shape))
        return whole

    def _written(self, name: str, value: Instruction) -> int:
        """The bytes that a fusion writes for a value that it returns."""
        lines = {line.name: line for line in self._program[name].instructions}
        if value.opcode == "tuple":
            return sum(self._written(name, lines[one]) for one in value.operands)
        if value.opcode in _SAME:
            return self._written(name, lines[value.operands[0]])
        if value.opcode in _UPDATE:
            updated = lines[value.operands[0]]
            while updated.opcode in _SAME:
                updated = lines[updated.operands[0]]
            if updated.opcode == "parameter":
                return _updated(value, self._shapes[name])
        if value.opcode == "fusion":
            (inner,) = called(value, "calls")
            return self._written(inner, _root(self._program, inner))
        return size_of(value.shape)


def _calls(
    name: str, program: Computations, times: int
) -> Iterator[tuple[Instruction, int, dict[str, str]]]:
    """All instructions, how often a call runs them, and the shapes of operands."""
    lines = program[name].instructions
    shapes = {line.name: line.shape for line in lines}
    for line in lines:
        yield line, times, shapes
        rounds = trip_count(line, name, program) if line.opcode == "while" else 1
        rounds = times * (1 if rounds is None else rounds)
        for inner in called(
            line,
            *("body", "condition", "calls", "branch_computations"),
            *("true_computation", "false_computation"),
            *(["to_apply"] if line.opcode == "call" else []),
        ):
            yield from _calls(inner, program, rounds)


def _is_sort(line: Instruction) -> bool:
    if line.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', line.attributes)
        return bool(target and re.search(r"(?i)sort|top_?k", target[1]))
    return line.opcode in ("sort", "topk")


def _sort(line: Instruction, times: int) -> Sized:
    return Sized(max(map(_entries, re.findall(r"\[[\d,]*\]", line.shape))), times, True)


def _scatter(line: Instruction, shapes: dict[str, str], times: int) -> Sized:
    unique = "unique_indices=true" in line.attributes
    return Sized(_entries(shapes[line.operands[0]]), times, unique)


def _updated(line: Instruction, shapes: dict[str, str]) -> int:
    """The bytes of the updates of a scatter or a dynamic-update-slice."""
    count = (len(line.operands) - 1) // 2 if line.opcode == "scatter" else 1
    first = count + 1 if line.opcode == "scatter" else 1
    return sum(size_of(shapes[one]) for one in line.operands[first : first + count])


def _entries(shape: str) -> int:
    dimensions = re.findall(r"\[([\d,]*)\]", shape)[0]
    return math.prod(int(size) for size in dimensions.split(",") if size)


def _root(program: Computations, name: str) -> Instruction:
    return next(line for line in program[name].instructions if line.is_root)


def _parameter(program: Computations, name: str, place: int) -> Instruction:
    return next(
        line
        for line in program[name].instructions
        if line.opcode == "parameter" and line.operands == [str(place)]
    )
