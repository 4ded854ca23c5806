"""Which collectives of an update wait for the gradients of the same call."""

import jax
import optax

from gmc_jax.core import Tree
from gmc_jax.utils import jaxprs


def senders_that_wait(tx: optax.GradientTransformation, params: Tree) -> list[str]:
    """The collectives with an operand that depends on the updates or parameters.

    All others read nothing but the state, so they may run beside the gradient.
    """
    state = tx.init(params)
    program = jax.make_jaxpr(tx.update, axis_env=[("workers", 8)])(
        params, state, params
    )
    values = len(jax.tree.leaves(params))
    of_call = [True] * values
    followed = [*of_call, *[False] * len(jax.tree.leaves(state)), *of_call]
    waiting: list[jaxprs.JaxprEqn] = []
    jaxprs.flow(program, followed, visit=waiting.append)
    assert any(jaxprs.sends(each, "workers") for each in jaxprs.equations(program))
    return [
        equation.primitive.name
        for equation in waiting
        if jaxprs.sends(equation, "workers")
    ]
