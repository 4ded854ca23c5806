"""Every public factory, and each of its arguments, given what does not belong there."""

import inspect
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import paces, timelines, topologies
from tests.support.factories import EXACT, RIGHT, SGD, TOP_K, found

NOT_FACTORIES = {
    # Of what there is at run time.
    *("assert_replicated", "average_workers", "evaluate", "fetch", "query"),
    *("full_gradient_due", "set_full_gradient", "svrg_snapshot", "wire_bytes"),
    *("message_bits", "peak_message_bits", "relative_cost", "worker_key", "with_hooks"),
    *("metrics", "worker_rngs"),
    # Runners and what belongs to them, with tests of their own.
    *("distribute", "layout", "resize", "simulate", "unrolled"),
    # Without arguments, or measured.
    *("dense", "maintain_buffers", "reset_buffers"),
    *("measure_encoding", "measure_encodings"),
}
WRONG = {
    "None": None,
    "text": "x",
    "list": [1],
    "NaN": math.nan,
    "inf": math.inf,
    "-1": -1,
    "True": True,
    "compressor": TOP_K,
    "channel": EXACT,
    "transformation": SGD,
    "tracer": "made in the test",
}
# What of it belongs there, by the name of the argument, or of the factory and it.
BELONGS = {
    "learning_rate": {"tracer"},
    **{
        f"{name}.learning_rate": {"None", "tracer"}
        for name in (
            *("detached", "global_momentum", "slow_momentum", "slowmo"),
            "quasi_global_momentum",
        )
    },
    "katyusha_x.learning_rate": set(),
    "momentum": {"None", "tracer"},
    **{
        f"{name}.momentum": {"tracer"}  # The first of two decays.
        for name in ("distributed_lion", "freezing_adam", "one_bit_adam")
    },
    "block_momentum": {"None", "tracer"},
    "outer_momentum": {"None", "tracer"},
    "anchor_momentum": {"None", "tracer"},
    "pull_to_anchor.decay": {"None", "tracer"},
    "pull": {"tracer"},
    "slow_momentum": {"None", "tracer"},
    **{
        name: {"tracer"}
        for name in (
            *("decay", "detach", "max_norm", "weight_decay", "slow_learning_rate"),
            *("block_learning_rate", "outer_learning_rate", "slow_step_size", "level"),
            *("period", "local_from_step", "epoch_length", "centre_rate"),
            *("freeze_step", "epsilon", "momentum_decay", "variance_decay"),
            *("buffer_decay", "consensus_step"),
        )
    },
    "one_bit_adam.freeze_step": set(),
    "one_bit_adam.server_channel": {"None", "channel"},
    "katyusha_x.epoch_length": set(),
    "katyusha_x.strong_convexity": {"None"},
    "timelines.all_reduce_times.period": set(),
    "streaming.period": set(),
    "streaming_diloco.period": set(),
    "fragments": {"None"},
    "merge": {"None"},
    "alpha": {"tracer"},
    "average": {"transformation"},
    "saef.period": {"None", "tracer"},
    "seed": {"-1", "tracer"},
    **{
        f"{name}.seed": set()
        for name in (
            *("topologies.random_matchings", "paces.random"),
            "timelines.neighbour_events",
        )
    },
    "topologies.matcha.seed": {"-1"},
    "axis_name": {"text"},
    **{
        name: {"True"}
        for name in (
            *("nesterov", "factor_masking", "per_leaf", "extra", "random_length"),
            "stochastic",
        )
    },
    "bucket": {"None"},
    "terngrad.clip": {"None"},
    "ternary_sgd.clip": {"None"},
    "buffers": {"None"},
    "next_start": {"None"},
    "projection": {"None"},
    "projected.projection": set(),
    "channel": {"channel"},
    "reset_channel": {"channel"},
    "server_channel": {"channel"},
    "buffer_channel": {"channel"},
    "inner": {"transformation"},
    "outer": {"transformation"},
    **{name: {"compressor"} for name in ("compressor", "selection", "values")},
    "all_reduce.compressor": set(),
    "self_weight": {"None"},
    "bandwidth": {"inf"},
    "planning.Pattern.name": {"text"},
    "planning.Pattern.expression": {"text"},
    "planning.Pattern.caution": {"text"},
    "planning.Pattern.selection": set(),
    "planning.Pattern.ratio": {"None"},
    "planning.Pattern.family": {"None"},
    "plan.parameters": set(),
    "plan.ratios": {"list"},
    "plan.periods": {"list"},
    "plan.steps": {"None"},
    "boundaries": {"list"},
}


def fault(factory: Callable, right: dict, argument: str, value: object) -> str | None:
    """What is wrong with the answer to a value, or None for an error as it should be.

    It must be a TypeError or ValueError that names the argument; else it was accepted.
    """
    try:
        factory(**right | {argument: value})
    except (TypeError, ValueError) as error:
        named = f"`{argument}" in str(error)
        return None if named else f"{type(error).__name__}: {str(error)[:150]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return "accepted"


def at_run_time(directory: str) -> dict[str, tuple[Callable, dict, set[str]]]:
    """Runners and what goes with them: right arguments, and which are attacked."""
    tx = gmc_jax.gmc(0.1, EXACT)

    def step(state, batch):
        params, opt_state = state
        updates, opt_state = tx.update(params - batch, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {}

    start = jnp.zeros(2), tx.init(jnp.zeros(2))
    given = {"step": step, "state": start, "batch": jnp.ones((1, 2))}
    plan = gmc_jax.layout(**given, workers=1)
    kept = plan.lay_out(start)
    checkpoints = gmc_jax.Checkpoints(directory, plan)
    simulated = given | {"workers": 1}
    meshed = given | {"mesh": Mesh(jax.devices()[:1], ("workers",))}
    runner = {"step", "axis_name", "replicated"}
    averaged = {"tree": kept, "layout": plan}
    evaluated = {"opt_state": kept[1], "params": kept[0], "layout": plan}
    resized = {"state": kept, "layout": plan, "workers": 2}
    located = {"directory": directory, "layout": plan}
    return {
        "layout": (gmc_jax.layout, simulated, {"step", "axis_name", "workers"}),
        "simulate": (gmc_jax.simulate, simulated, runner | {"workers", "metrics"}),
        "distribute": (gmc_jax.distribute, meshed, runner | {"mesh", "metrics"}),
        "unrolled": (gmc_jax.unrolled, {"fn": step}, {"fn"}),
        "average_workers": (gmc_jax.average_workers, averaged, {"layout"}),
        "evaluate": (gmc_jax.evaluate, evaluated, {"layout"}),
        "resize": (gmc_jax.resize, resized, {"layout", "workers", "params"}),
        "Checkpoints": (gmc_jax.Checkpoints, located, {"directory", "layout", "keep"}),
        "restore": (checkpoints.restore, {"like": kept}, {"resize", "params", "only"}),
    }


def test_so_it_is_at_run_time(tmp_path):
    """Runners, layouts and checkpoints said that a float is not callable, or nothing.

    A layout that was none was kept until the first save.
    """
    attacked = at_run_time(str(tmp_path))
    belongs = BELONGS | {
        "replicated": {"None"},
        "mesh": {"None"},
        "directory": {"text"},
        "only": {"None"},
        "resize": {"True"},
    }
    for name, (function, right, arguments) in attacked.items():
        for argument in arguments:
            for kind, value in WRONG.items():
                if kind not in belongs.get(argument, set()) | {"tracer"}:
                    answer = fault(function, right, argument, value)
                    assert answer is None, (name, argument, kind, answer)


@pytest.mark.parametrize("name", RIGHT)
def test_what_does_not_belong_is_refused_and_named(name):
    """None, texts, lists, NaN, booleans, nouns of ours and tracers, wherever they go.

    Each is either documented or a TypeError or ValueError that names the argument; no
    error of NumPy, of a trace or of Python, and nothing that is taken silently.
    """
    factory, right = found(name), RIGHT[name]
    factory(**right)
    faults = {}
    # What is wrong in a tree is named by its leaf.
    for argument in inspect.signature(factory).parameters.keys() - {"params"}:
        belongs = BELONGS.get(f"{name}.{argument}", BELONGS.get(argument, set()))
        for kind, value in WRONG.items():
            answers = []
            if kind == "tracer":

                def trace(traced, argument=argument, answers=answers):
                    answers.append(fault(factory, right, argument, traced))
                    return traced

                whole = isinstance(right.get(argument, 0.0), int)
                jax.eval_shape(trace, 1 if whole else 1.0)
            else:
                answers.append(fault(factory, right, argument, value))
            if answers != ["accepted" if kind in belongs else None]:
                faults[argument, kind] = answers
    assert not faults


def test_the_table_holds_every_factory():
    names = {
        name
        for name, thing in vars(gmc_jax).items()
        if inspect.isfunction(thing) and not name.startswith("_")
    }
    assert names == (set(RIGHT) & names) | NOT_FACTORIES
    for module in (paces, timelines, topologies):
        functions = {
            f"{module.__name__.rpartition('.')[2]}.{name}"
            for name, thing in vars(module).items()
            if inspect.isfunction(thing)
            and thing.__module__ == module.__name__
            and not name.startswith(("_", "check_"))
        }
        assert functions - {"paces.as_pace", "paces.recorded"} <= set(RIGHT)
