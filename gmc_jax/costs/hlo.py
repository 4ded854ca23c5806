"""Reading collectives and their bytes from the text of a compiled program."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gmc_jax.costs.replica_groups import within

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
    "send",
)
_BITS_OF_NAMED_TYPES = {"pred": 8, "token": 0, "opaque": 0}


class Collective(NamedTuple):
    """A collective in a compiled program.

    Attributes:
      operation: its name, such as `all-gather`, the same for the asynchronous form.
      bytes: the bytes of all its operands, on all devices of a worker.
      conditional: whether it is in a branch of a conditional.
      times: how often a call runs it if its branch is taken; None in a loop whose
        number of rounds the program does not tell.
    """

    operation: str
    bytes: int
    conditional: bool
    times: int | None


class Cost(NamedTuple):
    """The bytes that one run of a computation sends.

    Attributes:
      most: the bytes if each conditional takes the branch that sends most.
      always: the bytes outside conditionals.
      collectives: all collectives of the computation.
    """

    most: int
    always: int
    collectives: tuple[Collective, ...]


class Program(NamedTuple):
    """One HLO module of a compiled program.

    Attributes:
      computations: for each name, whether it is the entry, and its instructions.
      worker_of: for each device, its worker; None if each device is a worker.
    """

    computations: dict[str, tuple[bool, list["Instruction"]]]
    worker_of: Sequence[int] | None

    @property
    def devices(self) -> int:
        """The number of devices of a worker."""
        workers = self.worker_of
        return 1 if workers is None else len(workers) // len(set(workers))


class Instruction(NamedTuple):
    """A line `name = shape opcode(operands), attributes`, as XLA prints it."""

    name: str
    shape: str
    opcode: str
    operands: list[str]
    attributes: str


def collectives(text: str, worker_of: Sequence[int] | None = None) -> Cost:
    """Reads the collectives of all modules of a compiled program, with their bytes.

    Args:
      text: the program, as XLA prints it.
      worker_of: for each device, in the program's numbering, its worker. Collectives
        between devices of one worker do not count. If None, each device is a worker.

    Returns:
      The bytes of the program, and its collectives.
    """
    total = Cost(0, 0, ())
    for module in re.split(r"(?m)^(?=HloModule )", text):
        program = Program(_computations(module), worker_of)
        for name, (entry, _) in program.computations.items():
            if entry:
                cost = _cost(name, program)
                total = Cost(
                    total.most + cost.most,
                    total.always + cost.always,
                    total.collectives + cost.collectives,
                )
    return total


def _cost(name: str, program: Program) -> Cost:
    instructions = program.computations[name][1]
    shapes = {instruction.name: instruction.shape for instruction in instructions}
    most, always, all_collectives = 0, 0, []

    def include(cost: Cost, conditional: bool, times: int | None) -> None:
        nonlocal most, always
        if not conditional:
            most += cost.most * (1 if times is None else times)
            always += cost.always * (1 if times is None else times)
        for inner in cost.collectives:
            product = None
            if inner.times is not None and times is not None:
                product = inner.times * times
            all_collectives.append(
                inner._replace(
                    conditional=conditional or inner.conditional, times=product
                )
            )

    for instruction in instructions:
        operation = instruction.opcode.removesuffix("-start")
        if operation in COLLECTIVES:
            if not within(instruction.attributes, program.worker_of):
                size = sum(_bytes(shapes[operand]) for operand in instruction.operands)
                size *= program.devices
                sent = Collective(operation, size, False, 1)
                include(Cost(size, size, (sent,)), False, 1)
        elif operation == "while":
            trips = _trip_count(instruction.attributes)
            for called in _called(instruction.attributes, "body", "condition"):
                include(_cost(called, program), False, trips)
        elif operation == "conditional":
            branches = [
                _cost(called, program)
                for called in _called(
                    instruction.attributes,
                    "branch_computations",
                    "true_computation",
                    "false_computation",
                )
            ]
            most += max((branch.most for branch in branches), default=0)
            for branch in branches:
                include(branch, True, 1)
        elif not instruction.opcode.endswith(("-done", "-update")):
            for called in _called(instruction.attributes, "calls", "to_apply"):
                include(_cost(called, program), False, 1)
    return Cost(most, always, tuple(all_collectives))


def _computations(module: str) -> dict[str, tuple[bool, list[Instruction]]]:
    """Parses a module: by name, whether a computation is the entry, and its lines."""
    found: dict[str, tuple[bool, list[Instruction]]] = {}
    current: list[Instruction] = []
    for line in module.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) (\(.*)?.*\{$", line)
        if header and " = " not in line.split("(")[0]:
            current = []
            found[header[2]] = (bool(header[1]), current)
        else:
            current.extend(_instruction(line))
    return found


def _instruction(line: str) -> Iterator[Instruction]:
    match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not match:
        return
    rest = line[match.end() :]
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    # XLA may print a comment and a shape before a name: `/*index=5*/f32[2,3] %x`.
    operands = re.findall(r"(?:^|[ /])%?([\w.\-]+)(?=,|$)", rest[: end - 1])
    yield Instruction(match[1], shape, opcode, operands, rest[end:])


def _closing(text: str) -> int:
    """Returns the end of the parenthesis with which a text begins."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return place + 1
    return len(text)


def _called(attributes: str, *kinds: str) -> list[str]:
    names = []
    for kind in kinds:
        for group in re.findall(rf"\b{kind}=(\{{[^}}]*\}}|%?[\w.\-]+)", attributes):
            names += re.findall(r"[\w.\-]+", group)
    return names


def _trip_count(attributes: str) -> int | None:
    match = re.search(r"known_trip_count\W+n\W+(\d+)", attributes)
    return int(match[1]) if match else None


def _bytes(shape: str) -> int:
    bits = 0
    for kind, width, sizes in re.findall(r"([a-z]+(\d*)\w*)\[([\d,<=]*)\]", shape):
        dimensions = [int(size) for size in re.findall(r"\d+", sizes)]
        bits += int(width or _BITS_OF_NAMED_TYPES[kind]) * math.prod(dimensions)
    return -(-bits // 8)
