"""Reading collectives and their bytes from the text of a compiled program."""

from collections.abc import Sequence
from typing import NamedTuple

from gmc_jax.costs.hlo_text import Computations, called, modules, size_of
from gmc_jax.costs.replica_groups import within
from gmc_jax.costs.trip_counts import trip_count

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
      computations: of the module.
      worker_of: for each device, its worker; None if each device is a worker.
    """

    computations: Computations
    worker_of: Sequence[int] | None

    @property
    def devices(self) -> int:
        """The number of devices of a worker."""
        workers = self.worker_of
        return 1 if workers is None else len(workers) // len(set(workers))


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
    for computations in modules(text):
        program = Program(computations, worker_of)
        for name, computation in computations.items():
            if computation.is_entry:
                cost = _cost(name, program)
                total = Cost(
                    total.most + cost.most,
                    total.always + cost.always,
                    total.collectives + cost.collectives,
                )
    return total


def _cost(name: str, program: Program) -> Cost:
    instructions = program.computations[name].instructions
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
                size = sum(size_of(shapes[operand]) for operand in instruction.operands)
                size *= program.devices
                sent = Collective(operation, size, False, 1)
                include(Cost(size, size, (sent,)), False, 1)
        elif operation == "while":
            trips = trip_count(instruction, name, program.computations)
            for inner in called(instruction, "body", "condition"):
                include(_cost(inner, program), False, trips)
        elif operation == "conditional":
            branches = [
                _cost(branch, program)
                for branch in called(
                    instruction,
                    "branch_computations",
                    "true_computation",
                    "false_computation",
                )
            ]
            most += max((branch.most for branch in branches), default=0)
            for branch in branches:
                include(branch, True, 1)
        elif not instruction.opcode.endswith(("-done", "-update")):
            for inner in called(instruction, "calls", "to_apply"):
                include(_cost(inner, program), False, 1)
    return Cost(most, always, tuple(all_collectives))
