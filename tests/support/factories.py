"""Every public factory with valid arguments, as few and as small as possible."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

import jax
import jax.numpy as jnp
import optax

import gmc_jax
from gmc_jax import paces, planning, timelines, topologies

EXACT, TOP_K, SGD = gmc_jax.exact(), gmc_jax.top_k(0.5), optax.sgd(0.1)
RING, LINK, PACE = topologies.ring(3), timelines.Link(), paces.constant(3)
DRAWN = topologies.matcha(RING.edges, 0.5)
FEEDBACK = gmc_jax.error_feedback(EXACT)


def gradient(params, batch):
    return jax.value_and_grad(lambda p: jnp.sum((p - batch) ** 2))(params)


class Querying(NamedTuple):
    """A state with a hook."""

    def query(self, params):
        return params


# For each factory a valid value of each argument that has no default.
RIGHT = {
    "a_psgd": {"inner": SGD, "gradient": gradient, "workers": 2},
    "ad_psgd": {"inner": SGD, "gradient": gradient, "workers": 2},
    "bmuf": {"inner": SGD, "channel": EXACT, "period": 2},
    "cocod_sgd": {"inner": SGD, "channel": EXACT, "period": 2},
    "cser": {
        "learning_rate": 0.1,
        "channel": EXACT,
        "reset_channel": EXACT,
        "period": 2,
    },
    "d2": {"learning_rate": 0.1, "topology": RING},
    "choco_sgd": {"learning_rate": 0.1, "channel": EXACT},
    "d_psgd": {"learning_rate": 0.1, "topology": RING},
    "dcd_psgd": {"learning_rate": 0.1, "channel": EXACT},
    "demo": {"learning_rate": 0.1},
    "detached_optimizer": {"inner": SGD, "channel": EXACT},
    "diloco": {"inner": SGD, "channel": EXACT},
    "dist_ef_sgdm": {"learning_rate": 0.1, "channel": EXACT, "server_channel": EXACT},
    "double_squeeze": {
        "learning_rate": 0.1,
        "channel": EXACT,
        "server_channel": EXACT,
    },
    "double_averaging": {
        "learning_rate": 0.1,
        "channel": EXACT,
        "buffer_channel": EXACT,
        "period": 2,
    },
    "easgd": {"inner": SGD, "channel": EXACT, "period": 2},
    "ef_sign_sgd": {"learning_rate": 0.1},
    "gradient_tracking": {"learning_rate": 0.1, "topology": RING},
    "katyusha_x": {"learning_rate": 0.1, "channel": EXACT, "epoch_length": 2},
    "local_sgd": {"learning_rate": 0.1, "channel": EXACT, "period": 2},
    "lookahead": {"inner": SGD, "channel": EXACT},
    "overlap_local_sgd": {"inner": SGD, "channel": EXACT, "period": 2},
    "muloco": {"inner": SGD, "channel": EXACT},
    "one_bit_adam": {"learning_rate": 0.1, "channel": EXACT, "freeze_step": 2},
    "post_local_sgd": {
        "learning_rate": 0.1,
        "channel": EXACT,
        "local_from_step": 2,
    },
    "qsparse_local_sgd": {"learning_rate": 0.1, "channel": EXACT, "period": 2},
    "qg_dsgdm": {"learning_rate": 0.1, "topology": RING},
    "matcha": {"learning_rate": 0.1, "topology": DRAWN},
    "sgp": {"learning_rate": 0.1, "topology": RING},
    "slowmo": {"inner": SGD, "channel": EXACT},
    "streaming_diloco": {"inner": SGD, "channel": EXACT},
    "sparse_loco": {"inner": SGD, "channel": EXACT},
    "svrg": {"learning_rate": 0.1, "channel": EXACT, "epoch_length": 2},
    **{
        name: {"learning_rate": 0.1, "channel": EXACT}
        for name in (
            *("def_a", "def_sgd", "dgc", "dmsgd", "dmsgd_local", "ef_momentum"),
            *("ef_sgd", "gmc", "gmc_plus", "gmc_rate_inside", "gmc_server_momentum"),
            *("saef", "sign_sgd", "signum", "power_sgd", "ef21", "distributed_lion"),
        )
    },
    "quantised_sgd": {"learning_rate": 0.1},
    "ternary_sgd": {"learning_rate": 0.1},
    # Transformations.
    "accumulate": {"inner": FEEDBACK, "period": 2},
    "average_buffers": {"channel": EXACT},
    "average_residuals": {"inner": FEEDBACK, "period": 2},
    "clip_by_local_norm": {"max_norm": 1.0},
    "delayed_sync": {"channel": EXACT, "period": 2},
    "detached": {"inner": FEEDBACK, "detach": 0.5},
    "elastic_sync": {"channel": EXACT, "centre_rate": 0.9, "period": 2},
    "epochs": {"inner": SGD, "epoch_length": 2},
    "freezing_adam": {"inner": FEEDBACK, "freeze_step": 2},
    "global_momentum": {"inner": FEEDBACK, "decay": 0.9},
    "momentum_correction": {"channel": EXACT, "decay": 0.9},
    "partial_sync": {"channel": EXACT, "reset_channel": EXACT, "period": 2},
    "periodic": {"inner": SGD, "outer": SGD, "period": 2},
    "pull_to_anchor": {"channel": EXACT, "pull": 0.5, "period": 2},
    "quasi_global_momentum": {"inner": SGD, "decay": 0.9, "buffer_decay": 0.9},
    "projected": {"projection": lambda params: params},
    "at_virtual_iterate": {"inner": FEEDBACK},
    "leave_out_nonfinite": {"inner": FEEDBACK},
    "skip_nonfinite": {"inner": FEEDBACK},
    "corrected": {},
    "eager": {},
    "mix": {"alpha": 0.5},
    "streaming": {"inner": SGD, "average": FEEDBACK, "outer": SGD, "period": 2},
    "slow_momentum": {"slow_learning_rate": 1.0, "decay": 0.5},
    "with_float32_state": {"inner": SGD},
    **{
        name: {"channel": EXACT}
        for name in (
            *("adapt_then_combine", "averaged", "combine_then_adapt"),
            *("error_feedback", "exact_diffusion", "push_sum", "track_gradients"),
            *("variance_reduced", "count_bytes", "count_entries", "send_differences"),
            "difference_compression",
        )
    },
    # Channels and compressors.
    "all_gather": {"compressor": TOP_K},
    "all_reduce": {"compressor": gmc_jax.random_block(0.5)},
    "disagreement": {"topology": RING},
    "random_gossip": {"topology": DRAWN},
    "compressed_gossip": {"topology": RING, "compressor": TOP_K},
    "gossip": {"topology": RING},
    **{
        name: {"topology": RING, "compressor": TOP_K, "consensus_step": 0.5}
        for name in ("gossip_differences", "gossip_differences_overlapped")
    },
    "low_rank": {"rank": 1},
    "alternating_low_rank": {"rank": 1},
    "quantised": {"selection": TOP_K, "values": gmc_jax.dense()},
    "in_frequencies": {"channel": EXACT},
    "join_channels": {"channels": [EXACT, EXACT], "boundaries": [3]},
    **{
        name: {"compressor": TOP_K}
        for name in ("mean_of_senders", "simulated_server", "two_phase")
    },
    **{name: {} for name in ("no_communication", "exact", "majority_vote", "drop_all")},
    "top_k_of_rows": {"count": 1},
    "threshold": {"level": 1.0, "capacity": 0.5},
    "integers": {"bits": 4},
    "qsgd": {"levels": 7},
    **{
        name: {}
        for name in ("centroids", "float8", "powers_of_two", "scaled_sign", "terngrad")
    },
    **{
        name: {"ratio": 0.5}
        for name in (
            *("chunked_top_k", "random_block", "random_k", "sampled_top_k"),
            "top_k",
        )
    },
    # Graphs, clocks and plans.
    "Topology": {"rounds": RING.rounds},
    "topologies.complete": {"workers": 3},
    "topologies.exponential": {"workers": 3},
    "topologies.from_adjacency": {"adjacency": RING.edges},
    "topologies.lazy": {"topology": RING},
    "topologies.matcha": {"adjacency": RING.edges, "budget": 0.5},
    "topologies.one_peer_exponential": {"workers": 3},
    "topologies.pushing": {"adjacency": RING.edges},
    "topologies.random_matchings": {"workers": 3},
    "topologies.ring": {"workers": 3},
    "topologies.rotating_exponential": {"workers": 3, "peers": 1},
    "topologies.torus": {"rows": 2, "columns": 2},
    "paces.constant": {"workers": 3},
    "paces.random": {"workers": 3, "gradients": 2, "spread": 0.1},
    "paces.straggler": {"workers": 3, "factor": 2.0},
    "timelines.Link": {},
    "timelines.all_reduce_times": {"pace": PACE, "steps": 2, "size": 1, "link": LINK},
    "timelines.gossip_times": {
        **{"pace": PACE, "steps": 2, "size": 1, "link": LINK, "topology": RING}
    },
    "timelines.neighbour_events": {
        **{"pace": paces.constant(4), "gradients": 2, "size": 1, "link": LINK},
        "topology": topologies.ring(4),
    },
    "timelines.server_events": {"pace": PACE, "gradients": 2, "size": 1, "link": LINK},
    "planning.Pattern": {"name": "x", "syncs": (planning.Sync(EXACT),)},
    "plan": {
        **{"parameters": 10, "workers": 2, "link": LINK, "step_time": 0.1},
        "ratios": [0.5],
        "periods": [2],
    },
    "with_hooks": {"state": Querying},
    "link_traffic": {"channel": EXACT, "params": 1.0, "workers": 2},
}


def found(name: str) -> Callable:
    """The factory of a name. A dotted name is in a module of the package."""
    module, _, own = name.rpartition(".")
    return getattr(getattr(gmc_jax, module) if module else gmc_jax, own)


def names_of(kind: type) -> list[str]:
    """The names of the factories that make a kind of thing, as they are annotated."""

    def made(factory: Callable) -> Any:
        is_class = inspect.isclass(factory)
        return factory if is_class else get_type_hints(factory)["return"]

    makes = {name: made(found(name)) for name in RIGHT}
    return [
        name
        for name, its in makes.items()
        if inspect.isclass(its) and issubclass(its, kind)
    ]
