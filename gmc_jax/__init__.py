"""Training JAX models over slow links, in the grammar of optax.

A *compressor* turns a vector into a message: `top_k(0.01)`. A *channel* averages a tree
over workers, exactly or through a compressor: `all_gather(top_k(0.01))`. A *method* is
an `optax.GradientTransformation` made of channels and transforms: `gmc(0.1, channel)`.

    compressors    dense, top_k, sampled_top_k, chunked_top_k, top_k_of_rows, threshold,
                   random_k, random_block; of few bits: scaled_sign, integers, float8,
                   powers_of_two, qsgd, terngrad, centroids; quantised around some
    channels       exact, all_gather, all_reduce, two_phase, low_rank,
                   alternating_low_rank, majority_vote, mean_of_senders; of neighbours:
                   gossip, disagreement, random_gossip, compressed_gossip,
                   gossip_differences, gossip_differences_overlapped; sending nothing:
                   simulated_server, no_communication, drop_all; around others:
                   count_entries, count_bytes, join_channels, in_frequencies
    methods        gmc and its relatives, dgc, cser, def_a, ef_sgd, power_sgd, ef21,
                   one_bit_adam, dmsgd, local_sgd, slowmo, diloco, streaming_diloco,
                   d_psgd, sgp, d2, signum, svrg and more
    transforms     what methods are made of: error_feedback, global_momentum, periodic,
                   streaming, averaged, partial_sync, ...; around a method:
                   skip_nonfinite, leave_out_nonfinite, accumulate
    the loop       query in the step of one worker; simulate or distribute around it;
                   evaluate, metrics, resize, Checkpoints; worker_key, worker_rngs
    costs          message_bits, peak_message_bits, wire_bytes, link_traffic,
                   relative_cost, plan
    modules        topologies, paces, timelines, planning

`help` of any name says what it does and what its arguments are. `help(gmc_jax.gmc)`
also shows equations and an example.
"""

from gmc_jax.channels._differences import (
    GossipDifferencesState as GossipDifferencesState,
)
from gmc_jax.channels.all_gather import all_gather as all_gather
from gmc_jax.channels.all_reduce import all_reduce as all_reduce
from gmc_jax.channels.alternating_low_rank import (
    AlternatingLowRankState as AlternatingLowRankState,
)
from gmc_jax.channels.alternating_low_rank import (
    alternating_low_rank as alternating_low_rank,
)
from gmc_jax.channels.compressed import CompressedState as CompressedState
from gmc_jax.channels.compressed_gossip import compressed_gossip as compressed_gossip
from gmc_jax.channels.count_bytes import CountBytesState as CountBytesState
from gmc_jax.channels.count_bytes import count_bytes as count_bytes
from gmc_jax.channels.count_entries import CountEntriesState as CountEntriesState
from gmc_jax.channels.count_entries import count_entries as count_entries
from gmc_jax.channels.delayed_messages import (
    DelayedMessagesState as DelayedMessagesState,
)
from gmc_jax.channels.disagreement import disagreement as disagreement
from gmc_jax.channels.drop_all import drop_all as drop_all
from gmc_jax.channels.exact import exact as exact
from gmc_jax.channels.gossip import GossipState as GossipState
from gmc_jax.channels.gossip import gossip as gossip
from gmc_jax.channels.gossip_differences import (
    gossip_differences as gossip_differences,
)
from gmc_jax.channels.gossip_differences_overlapped import (
    gossip_differences_overlapped as gossip_differences_overlapped,
)
from gmc_jax.channels.in_frequencies import in_frequencies as in_frequencies
from gmc_jax.channels.join_channels import JoinedState as JoinedState
from gmc_jax.channels.join_channels import join_channels as join_channels
from gmc_jax.channels.low_rank import LowRankState as LowRankState
from gmc_jax.channels.low_rank import low_rank as low_rank
from gmc_jax.channels.majority_vote import majority_vote as majority_vote
from gmc_jax.channels.mean_of_senders import mean_of_senders as mean_of_senders
from gmc_jax.channels.no_communication import no_communication as no_communication
from gmc_jax.channels.random_gossip import RandomGossipState as RandomGossipState
from gmc_jax.channels.random_gossip import random_gossip as random_gossip
from gmc_jax.channels.simulated_server import simulated_server as simulated_server
from gmc_jax.channels.two_phase import two_phase as two_phase
from gmc_jax.checkpoints.checkpoints import Checkpoints as Checkpoints
from gmc_jax.clocks import paces as paces
from gmc_jax.clocks import timelines as timelines
from gmc_jax.clocks.link import Link as Link
from gmc_jax.clocks.timelines import Event as Event
from gmc_jax.clocks.timelines import Events as Events
from gmc_jax.compressors.centroids import centroids as centroids
from gmc_jax.compressors.chunked_top_k import chunked_top_k as chunked_top_k
from gmc_jax.compressors.dense import dense as dense
from gmc_jax.compressors.float8 import float8 as float8
from gmc_jax.compressors.integers import integers as integers
from gmc_jax.compressors.powers_of_two import powers_of_two as powers_of_two
from gmc_jax.compressors.qsgd import qsgd as qsgd
from gmc_jax.compressors.quantised import quantised as quantised
from gmc_jax.compressors.random_block import random_block as random_block
from gmc_jax.compressors.random_k import random_k as random_k
from gmc_jax.compressors.sampled_top_k import sampled_top_k as sampled_top_k
from gmc_jax.compressors.scaled_sign import scaled_sign as scaled_sign
from gmc_jax.compressors.terngrad import terngrad as terngrad
from gmc_jax.compressors.threshold import threshold as threshold
from gmc_jax.compressors.top_k import top_k as top_k
from gmc_jax.compressors.top_k_of_rows import top_k_of_rows as top_k_of_rows
from gmc_jax.core import Blockwise as Blockwise
from gmc_jax.core import Channel as Channel
from gmc_jax.core import Compressor as Compressor
from gmc_jax.core import Drawn as Drawn
from gmc_jax.core import Largest as Largest
from gmc_jax.core import Sparse as Sparse
from gmc_jax.core import with_hooks as with_hooks
from gmc_jax.costs import planning as planning
from gmc_jax.costs.accounting import WireBytes as WireBytes
from gmc_jax.costs.accounting import message_bits as message_bits
from gmc_jax.costs.accounting import peak_message_bits as peak_message_bits
from gmc_jax.costs.accounting import relative_cost as relative_cost
from gmc_jax.costs.accounting import wire_bytes as wire_bytes
from gmc_jax.costs.compression_cost import measure_encoding as measure_encoding
from gmc_jax.costs.compression_cost import measure_encodings as measure_encodings
from gmc_jax.costs.planning import plan as plan
from gmc_jax.costs.traffic import Traffic as Traffic
from gmc_jax.costs.traffic import link_traffic as link_traffic
from gmc_jax.execution.distribute import distribute as distribute
from gmc_jax.execution.evaluate import average_workers as average_workers
from gmc_jax.execution.evaluate import evaluate as evaluate
from gmc_jax.execution.layout import Layout as Layout
from gmc_jax.execution.layout import Train as Train
from gmc_jax.execution.layout import layout as layout
from gmc_jax.execution.metrics import metrics as metrics
from gmc_jax.execution.replicas import assert_replicated as assert_replicated
from gmc_jax.execution.resize import resize as resize
from gmc_jax.execution.simulate import simulate as simulate
from gmc_jax.execution.step import Step as Step
from gmc_jax.execution.unrolled import unrolled as unrolled
from gmc_jax.execution.worker_key import worker_key as worker_key
from gmc_jax.execution.worker_key import worker_rngs as worker_rngs
from gmc_jax.graphs import topologies as topologies
from gmc_jax.graphs.random_topology import RandomTopology as RandomTopology
from gmc_jax.graphs.topology import Topology as Topology
from gmc_jax.methods.a_psgd import APSGDState as APSGDState
from gmc_jax.methods.a_psgd import a_psgd as a_psgd
from gmc_jax.methods.ad_psgd import ADPSGDState as ADPSGDState
from gmc_jax.methods.ad_psgd import ad_psgd as ad_psgd
from gmc_jax.methods.asynchronous import Asynchronous as Asynchronous
from gmc_jax.methods.bmuf import bmuf as bmuf
from gmc_jax.methods.choco_sgd import choco_sgd as choco_sgd
from gmc_jax.methods.cocod_sgd import cocod_sgd as cocod_sgd
from gmc_jax.methods.cser import cser as cser
from gmc_jax.methods.d2 import d2 as d2
from gmc_jax.methods.d_psgd import d_psgd as d_psgd
from gmc_jax.methods.dcd_psgd import dcd_psgd as dcd_psgd
from gmc_jax.methods.def_a import def_a as def_a
from gmc_jax.methods.def_sgd import def_sgd as def_sgd
from gmc_jax.methods.demo import demo as demo
from gmc_jax.methods.detached_optimizer import (
    detached_optimizer as detached_optimizer,
)
from gmc_jax.methods.dgc import dgc as dgc
from gmc_jax.methods.diloco import diloco as diloco
from gmc_jax.methods.dist_ef_sgdm import dist_ef_sgdm as dist_ef_sgdm
from gmc_jax.methods.distributed_lion import distributed_lion as distributed_lion
from gmc_jax.methods.dmsgd import dmsgd as dmsgd
from gmc_jax.methods.dmsgd_local import dmsgd_local as dmsgd_local
from gmc_jax.methods.double_averaging import double_averaging as double_averaging
from gmc_jax.methods.double_squeeze import double_squeeze as double_squeeze
from gmc_jax.methods.easgd import easgd as easgd
from gmc_jax.methods.ef21 import ef21 as ef21
from gmc_jax.methods.ef_momentum import ef_momentum as ef_momentum
from gmc_jax.methods.ef_sgd import ef_sgd as ef_sgd
from gmc_jax.methods.ef_sign_sgd import ef_sign_sgd as ef_sign_sgd
from gmc_jax.methods.gmc import gmc as gmc
from gmc_jax.methods.gmc_plus import gmc_plus as gmc_plus
from gmc_jax.methods.gmc_rate_inside import gmc_rate_inside as gmc_rate_inside
from gmc_jax.methods.gmc_server_momentum import (
    gmc_server_momentum as gmc_server_momentum,
)
from gmc_jax.methods.gradient_tracking import gradient_tracking as gradient_tracking
from gmc_jax.methods.katyusha_x import katyusha_x as katyusha_x
from gmc_jax.methods.local_sgd import local_sgd as local_sgd
from gmc_jax.methods.lookahead import lookahead as lookahead
from gmc_jax.methods.matcha import matcha as matcha
from gmc_jax.methods.muloco import muloco as muloco
from gmc_jax.methods.one_bit_adam import one_bit_adam as one_bit_adam
from gmc_jax.methods.overlap_local_sgd import overlap_local_sgd as overlap_local_sgd
from gmc_jax.methods.post_local_sgd import post_local_sgd as post_local_sgd
from gmc_jax.methods.power_sgd import power_sgd as power_sgd
from gmc_jax.methods.qg_dsgdm import qg_dsgdm as qg_dsgdm
from gmc_jax.methods.qsparse_local_sgd import qsparse_local_sgd as qsparse_local_sgd
from gmc_jax.methods.quantised_sgd import quantised_sgd as quantised_sgd
from gmc_jax.methods.saef import saef as saef
from gmc_jax.methods.sgp import sgp as sgp
from gmc_jax.methods.sign_sgd import sign_sgd as sign_sgd
from gmc_jax.methods.signum import signum as signum
from gmc_jax.methods.slowmo import slowmo as slowmo
from gmc_jax.methods.sparse_loco import sparse_loco as sparse_loco
from gmc_jax.methods.streaming_diloco import streaming_diloco as streaming_diloco
from gmc_jax.methods.svrg import svrg as svrg
from gmc_jax.methods.ternary_sgd import ternary_sgd as ternary_sgd
from gmc_jax.transforms.accumulate import AccumulateState as AccumulateState
from gmc_jax.transforms.accumulate import accumulate as accumulate
from gmc_jax.transforms.at_virtual_iterate import (
    AtVirtualIterateState as AtVirtualIterateState,
)
from gmc_jax.transforms.at_virtual_iterate import (
    at_virtual_iterate as at_virtual_iterate,
)
from gmc_jax.transforms.average_residuals import (
    AverageResidualsState as AverageResidualsState,
)
from gmc_jax.transforms.average_residuals import average_residuals as average_residuals
from gmc_jax.transforms.averaged import averaged as averaged
from gmc_jax.transforms.buffers import Buffers as Buffers
from gmc_jax.transforms.buffers import average_buffers as average_buffers
from gmc_jax.transforms.buffers import maintain_buffers as maintain_buffers
from gmc_jax.transforms.buffers import reset_buffers as reset_buffers
from gmc_jax.transforms.clip_by_local_norm import (
    clip_by_local_norm as clip_by_local_norm,
)
from gmc_jax.transforms.consensus import adapt_then_combine as adapt_then_combine
from gmc_jax.transforms.consensus import combine_then_adapt as combine_then_adapt
from gmc_jax.transforms.delayed_sync import DelayedSyncState as DelayedSyncState
from gmc_jax.transforms.delayed_sync import delayed_sync as delayed_sync
from gmc_jax.transforms.detached import DetachedState as DetachedState
from gmc_jax.transforms.detached import detached as detached
from gmc_jax.transforms.difference_compression import (
    DifferenceCompressionState as DifferenceCompressionState,
)
from gmc_jax.transforms.difference_compression import (
    difference_compression as difference_compression,
)
from gmc_jax.transforms.elastic_sync import ElasticSyncState as ElasticSyncState
from gmc_jax.transforms.elastic_sync import elastic_sync as elastic_sync
from gmc_jax.transforms.epochs import EpochsState as EpochsState
from gmc_jax.transforms.epochs import epochs as epochs
from gmc_jax.transforms.error_feedback import ErrorFeedbackState as ErrorFeedbackState
from gmc_jax.transforms.error_feedback import error_feedback as error_feedback
from gmc_jax.transforms.exact_diffusion import (
    ExactDiffusionState as ExactDiffusionState,
)
from gmc_jax.transforms.exact_diffusion import exact_diffusion as exact_diffusion
from gmc_jax.transforms.freezing_adam import FreezingAdamState as FreezingAdamState
from gmc_jax.transforms.freezing_adam import freezing_adam as freezing_adam
from gmc_jax.transforms.full_gradient import full_gradient_due as full_gradient_due
from gmc_jax.transforms.full_gradient import set_full_gradient as set_full_gradient
from gmc_jax.transforms.full_gradient import svrg_snapshot as svrg_snapshot
from gmc_jax.transforms.global_momentum import (
    GlobalMomentumState as GlobalMomentumState,
)
from gmc_jax.transforms.global_momentum import global_momentum as global_momentum
from gmc_jax.transforms.leave_out_nonfinite import (
    LeaveOutNonfiniteState as LeaveOutNonfiniteState,
)
from gmc_jax.transforms.leave_out_nonfinite import (
    leave_out_nonfinite as leave_out_nonfinite,
)
from gmc_jax.transforms.merges import Merge as Merge
from gmc_jax.transforms.merges import corrected as corrected
from gmc_jax.transforms.merges import eager as eager
from gmc_jax.transforms.merges import mix as mix
from gmc_jax.transforms.momentum_correction import (
    MomentumCorrectionState as MomentumCorrectionState,
)
from gmc_jax.transforms.momentum_correction import (
    momentum_correction as momentum_correction,
)
from gmc_jax.transforms.partial_sync import PartialSyncState as PartialSyncState
from gmc_jax.transforms.partial_sync import partial_sync as partial_sync
from gmc_jax.transforms.periodic import PeriodicState as PeriodicState
from gmc_jax.transforms.periodic import periodic as periodic
from gmc_jax.transforms.projected import projected as projected
from gmc_jax.transforms.pull_to_anchor import PullToAnchorState as PullToAnchorState
from gmc_jax.transforms.pull_to_anchor import pull_to_anchor as pull_to_anchor
from gmc_jax.transforms.push_sum import PushSumState as PushSumState
from gmc_jax.transforms.push_sum import push_sum as push_sum
from gmc_jax.transforms.quasi_global_momentum import (
    QuasiGlobalMomentumState as QuasiGlobalMomentumState,
)
from gmc_jax.transforms.quasi_global_momentum import (
    quasi_global_momentum as quasi_global_momentum,
)
from gmc_jax.transforms.query import query as query
from gmc_jax.transforms.send_differences import (
    SendDifferencesState as SendDifferencesState,
)
from gmc_jax.transforms.send_differences import send_differences as send_differences
from gmc_jax.transforms.skip_nonfinite import SkipNonfiniteState as SkipNonfiniteState
from gmc_jax.transforms.skip_nonfinite import skip_nonfinite as skip_nonfinite
from gmc_jax.transforms.slow_momentum import SlowMomentumState as SlowMomentumState
from gmc_jax.transforms.slow_momentum import slow_momentum as slow_momentum
from gmc_jax.transforms.streaming import StreamingState as StreamingState
from gmc_jax.transforms.streaming import streaming as streaming
from gmc_jax.transforms.track_gradients import (
    TrackGradientsState as TrackGradientsState,
)
from gmc_jax.transforms.track_gradients import track_gradients as track_gradients
from gmc_jax.transforms.variance_reduced import (
    VarianceReducedState as VarianceReducedState,
)
from gmc_jax.transforms.variance_reduced import variance_reduced as variance_reduced
from gmc_jax.transforms.with_float32_state import (
    with_float32_state as with_float32_state,
)
from gmc_jax.utils.multihost import fetch as fetch

__version__ = "0.1.0"

# Compressors: a vector into a message.
__all__ = [
    "centroids",
    "chunked_top_k",
    "dense",
    "float8",
    "integers",
    "powers_of_two",
    "qsgd",
    "quantised",
    "random_block",
    "random_k",
    "sampled_top_k",
    "scaled_sign",
    "terngrad",
    "threshold",
    "top_k",
    "top_k_of_rows",
]

# Channels: averages over workers.
__all__ += [
    "all_gather",
    "all_reduce",
    "alternating_low_rank",
    "compressed_gossip",
    "count_bytes",
    "count_entries",
    "disagreement",
    "drop_all",
    "exact",
    "gossip",
    "gossip_differences",
    "gossip_differences_overlapped",
    "in_frequencies",
    "join_channels",
    "low_rank",
    "majority_vote",
    "mean_of_senders",
    "no_communication",
    "random_gossip",
    "simulated_server",
    "two_phase",
]

# Methods: published ones, each a chain with its paper's defaults.
__all__ += [
    "a_psgd",
    "ad_psgd",
    "bmuf",
    "choco_sgd",
    "cocod_sgd",
    "cser",
    "d2",
    "d_psgd",
    "dcd_psgd",
    "def_a",
    "def_sgd",
    "demo",
    "detached_optimizer",
    "dgc",
    "diloco",
    "dist_ef_sgdm",
    "distributed_lion",
    "dmsgd",
    "dmsgd_local",
    "double_averaging",
    "double_squeeze",
    "easgd",
    "ef21",
    "ef_momentum",
    "ef_sgd",
    "ef_sign_sgd",
    "gmc",
    "gmc_plus",
    "gmc_rate_inside",
    "gmc_server_momentum",
    "gradient_tracking",
    "katyusha_x",
    "local_sgd",
    "lookahead",
    "matcha",
    "muloco",
    "one_bit_adam",
    "overlap_local_sgd",
    "post_local_sgd",
    "power_sgd",
    "qg_dsgdm",
    "qsparse_local_sgd",
    "quantised_sgd",
    "saef",
    "sgp",
    "sign_sgd",
    "signum",
    "slowmo",
    "sparse_loco",
    "streaming_diloco",
    "svrg",
    "ternary_sgd",
]

# Transforms: what methods are made of, and what stands around them.
__all__ += [
    "accumulate",
    "adapt_then_combine",
    "at_virtual_iterate",
    "average_buffers",
    "average_residuals",
    "averaged",
    "clip_by_local_norm",
    "combine_then_adapt",
    "corrected",
    "delayed_sync",
    "detached",
    "difference_compression",
    "eager",
    "elastic_sync",
    "epochs",
    "error_feedback",
    "exact_diffusion",
    "freezing_adam",
    "global_momentum",
    "leave_out_nonfinite",
    "maintain_buffers",
    "mix",
    "momentum_correction",
    "partial_sync",
    "periodic",
    "projected",
    "pull_to_anchor",
    "push_sum",
    "quasi_global_momentum",
    "reset_buffers",
    "send_differences",
    "skip_nonfinite",
    "slow_momentum",
    "streaming",
    "track_gradients",
    "variance_reduced",
    "with_float32_state",
]

# In the loop and around it.
__all__ += [
    "Checkpoints",
    "assert_replicated",
    "average_workers",
    "distribute",
    "evaluate",
    "fetch",
    "full_gradient_due",
    "layout",
    "metrics",
    "query",
    "resize",
    "set_full_gradient",
    "simulate",
    "svrg_snapshot",
    "unrolled",
    "worker_key",
    "worker_rngs",
]

# Costs: what is sent, and how long it takes.
__all__ += [
    "link_traffic",
    "measure_encoding",
    "measure_encodings",
    "message_bits",
    "peak_message_bits",
    "plan",
    "relative_cost",
    "wire_bytes",
]

# Types.
__all__ += [
    "Asynchronous",
    "Blockwise",
    "Buffers",
    "Channel",
    "Compressor",
    "Drawn",
    "Event",
    "Events",
    "Largest",
    "Layout",
    "Link",
    "Merge",
    "RandomTopology",
    "Sparse",
    "Step",
    "Topology",
    "Traffic",
    "Train",
    "WireBytes",
]

# States, and what marks one that has hooks.
__all__ += [
    "ADPSGDState",
    "APSGDState",
    "AccumulateState",
    "AlternatingLowRankState",
    "AtVirtualIterateState",
    "AverageResidualsState",
    "CompressedState",
    "CountBytesState",
    "CountEntriesState",
    "DelayedMessagesState",
    "DelayedSyncState",
    "DetachedState",
    "DifferenceCompressionState",
    "ElasticSyncState",
    "EpochsState",
    "ErrorFeedbackState",
    "ExactDiffusionState",
    "FreezingAdamState",
    "GlobalMomentumState",
    "GossipDifferencesState",
    "GossipState",
    "JoinedState",
    "LeaveOutNonfiniteState",
    "LowRankState",
    "MomentumCorrectionState",
    "PartialSyncState",
    "PeriodicState",
    "PullToAnchorState",
    "PushSumState",
    "QuasiGlobalMomentumState",
    "RandomGossipState",
    "SendDifferencesState",
    "SkipNonfiniteState",
    "SlowMomentumState",
    "StreamingState",
    "TrackGradientsState",
    "VarianceReducedState",
    "with_hooks",
]

# Modules.
__all__ += [
    "paces",
    "planning",
    "timelines",
    "topologies",
]
