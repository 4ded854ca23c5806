"""The text of a compiled program, read as computations and their instructions."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

_BITS_OF_NAMED_TYPES = {"pred": 8, "token": 0, "opaque": 0}


class Instruction(NamedTuple):
    """A line `name = shape opcode(operands), attributes`, as XLA prints it.

    Attributes:
      name: unique in its computation.
      shape: of the result, with its layout; in parentheses if it is a tuple.
      opcode: such as `fusion`.
      operands: the names of other instructions; what else stands in the parentheses of
        `constant` and `parameter`.
      attributes: the rest of the line.
      is_root: whether it gives the result of its computation.
    """

    name: str
    shape: str
    opcode: str
    operands: list[str]
    attributes: str
    is_root: bool


class Computation(NamedTuple):
    """A computation of a module.

    Attributes:
      is_entry: whether the module starts with it.
      instructions: its lines, in their order.
    """

    is_entry: bool
    instructions: list[Instruction]


Computations: TypeAlias = dict[str, Computation]
"""The computations of a module by their names."""


def modules(text: str) -> Iterator[Computations]:
    """Parses all modules of a program."""
    for module in re.split(r"(?m)^(?=HloModule )", text)[1:]:
        yield _computations(module)


def called(instruction: Instruction, *kinds: str) -> list[str]:
    """The computations that an instruction calls.

    Args:
      instruction: the instruction.
      *kinds: the attributes that name them, such as `calls` or `body`.
    """
    names = []
    for kind in kinds:
        found = re.findall(
            rf"\b{kind}=(\{{[^}}]*\}}|%?[\w.\-]+)", instruction.attributes
        )
        for group in found:
            names += re.findall(r"[\w.\-]+", group)
    return names


def size_of(shape: str) -> int:
    """The bytes of a shape, without padding; of all its parts if it is a tuple."""
    bits = 0
    for kind, width, sizes in re.findall(r"([a-z]+(\d*)\w*)\[([\d,<=]*)\]", shape):
        dimensions = [int(size) for size in re.findall(r"\d+", sizes)]
        bits += int(width or _BITS_OF_NAMED_TYPES[kind]) * math.prod(dimensions)
    return -(-bits // 8)


def _computations(module: str) -> Computations:
    found: Computations = {}
    current: list[Instruction] = []
    for line in module.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) (\(.*)?.*\{$", line)
        if header and " = " not in line.split("(")[0]:
            current = []
            found[header[2]] = Computation(bool(header[1]), current)
        else:
            current.extend(_instruction(line))
    return found


def _instruction(line: str) -> Iterator[Instruction]:
    match = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return
    rest = line[match.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    # XLA may print a comment and a shape before a name: `/*index=5*/f32[2,3] %x`.
    operands = re.findall(r"(?:^|[ /])%?([\w.\-]+)(?=,|$)", rest[: end - 1])
    yield Instruction(match[2], shape, opcode, operands, rest[end:], bool(match[1]))


def _closing(text: str) -> int:
    """Returns the end of the parenthesis with which a text begins."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place + 1
    return len(text)
