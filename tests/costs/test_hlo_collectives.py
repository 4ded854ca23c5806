"""Tests of the collectives that are read from lines of XLA, and of their groups."""

import pytest

from gmc_jax.costs.hlo import Collective, collectives
from tests.support.hlo_text import program

INSTRUCTIONS = {
    "an all-gather": (
        """
        %p = f32[1000]{0} parameter(0), sharding={devices=[8]<=[8]}
        ROOT %all_gather.13 = f32[8,1000]{1,0} all-gather(%p), channel_id=1,\
 replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, use_global_device_ids=true,\
 metadata={op_name="jit(checked)/shard_map/all_gather" stack_frame_id=192}
        """,
        ("all-gather", 4000),
    ),
    "asynchronous": (
        """
        %p = f32[1000]{0} parameter(0)
        %ag-start = (f32[1000]{0}, f32[8,1000]{1,0}) all-gather-start(%p),\
 channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
        ROOT %ag-done = f32[8,1000]{1,0} all-gather-done(%ag-start)
        """,
        ("all-gather", 4000),
    ),
    "asynchronous, of a tuple": (
        """
        %p = f32[1000]{0} parameter(0)
        %i = s32[1000]{0} iota(), iota_dimension=0
        %ag-start = ((f32[1000]{0}, s32[1000]{0}), (f32[8,1000]{1,0},\
 s32[8,1000]{1,0})) all-gather-start(%p, %i), channel_id=1,\
 replica_groups=[1,8]<=[8], dimensions={0}, use_global_device_ids=true,\
 backend_config={"operation_queue_id":"0","collective_backend_config":{"is_sync":\
true,"no_parallel_custom_call":false},"reification_cost":[]}
        %ag-done = (f32[8,1000]{1,0}, s32[8,1000]{1,0}) all-gather-done(%ag-start)
        ROOT %values = f32[8,1000]{1,0} get-tuple-element(%ag-done), index=0
        """,
        ("all-gather", 8000),
    ),
    "variadic, with comments between the operands": (
        """
        %p = f32[1000]{0} parameter(0)
        %a = f32[1]{0} slice(%p), slice={[0:1]}
        %b = f32[2]{0} slice(%p), slice={[0:2]}
        %c = f32[3]{0} slice(%p), slice={[0:3]}
        %d = f32[4]{0} slice(%p), slice={[0:4]}
        %e = f32[5]{0} slice(%p), slice={[0:5]}
        %f = f32[6]{0} slice(%p), slice={[0:6]}
        ROOT %all-reduce = (f32[1]{0}, f32[2]{0}, f32[3]{0}, f32[4]{0}, f32[5]{0},\
 /*index=5*/f32[6]{0}) all-reduce(%a, %b, %c, %d, %e, /*index=5*/%f), channel_id=1,\
 replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%add
        """,
        ("all-reduce", 84),
    ),
    "tiled layouts and shapes in front of operands": (
        """
        %p = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(0)
        %q = f32[8,128]{1,0:T(8,128)S(1)} convert(bf16[16,128]{1,0:T(8,128)(2,1)} %p)
        ROOT %ar = (bf16[16,128]{1,0:T(8,128)(2,1)}, f32[8,128]{1,0:T(8,128)})\
 all-reduce(bf16[16,128]{1,0:T(8,128)(2,1)} %p, f32[8,128]{1,0:T(8,128)S(1)} %q),\
 channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
        """,
        ("all-reduce", 2 * 16 * 128 + 4 * 8 * 128),
    ),
    "names without a percent sign": (
        """
        p = f32[10]{0} parameter(0)
        q = f32[20]{0} parameter(1)
        ROOT r = (f32[10]{0}, f32[20]{0}) all-reduce(p, q), replica_groups={},\
 to_apply=add
        """,
        ("all-reduce", 120),
    ),
    "a mesh of axes": (
        """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} all-reduce(%p), channel_id=1,\
 replica_groups=mesh['workers'=8,'model'=1] {'workers'}, to_apply=%add
        """,
        ("all-reduce", 40),
    ),
    "half an axis of a mesh": (
        """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} all-reduce(%p), channel_id=1,\
 replica_groups=mesh['workers'=8] {'workers':(1)4}, to_apply=%add
        """,
        ("all-reduce", 40),
    ),
    "a numbered mesh of groups": (
        """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} all-reduce(%p), channel_id=1,\
 replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
        """,
        ("all-reduce", 40),
    ),
    "predicates take a byte": (
        """
        %p = pred[100]{0} parameter(0)
        ROOT %r = pred[8,100]{1,0} all-gather(%p), replica_groups={{0,1}}
        """,
        ("all-gather", 100),
    ),
    "half bytes": (
        """
        %p = s4[101]{0:E(4)} parameter(0)
        ROOT %r = s4[8,101]{1,0:E(4)} all-gather(%p), replica_groups={{0,1}}
        """,
        ("all-gather", 51),
    ),
    "eight-bit floats": (
        """
        %p = f8e4m3fn[100]{0} parameter(0)
        ROOT %r = f8e4m3fn[8,100]{1,0} all-gather(%p), replica_groups={{0,1}}
        """,
        ("all-gather", 100),
    ),
    "complex numbers": (
        """
        %p = c64[100]{0} parameter(0)
        ROOT %r = c64[100]{0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
        """,
        ("all-reduce", 800),
    ),
    "a scalar": (
        """
        %p = f64[] parameter(0)
        ROOT %r = f64[] all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
        """,
        ("all-reduce", 8),
    ),
    "a dynamic size": (
        """
        %p = s32[<=10]{0} parameter(0)
        ROOT %r = s32[<=20]{0} all-gather(%p), replica_groups={{0,1}}
        """,
        ("all-gather", 40),
    ),
    "a permutation": (
        """
        %p = u32[10]{0} parameter(0)
        %s = (u32[10]{0}, u32[10]{0}, u32[], u32[]) collective-permute-start(%p),\
 channel_id=1, source_target_pairs={{0,1},{1,0},{2,2}}
        ROOT %d = u32[10]{0} collective-permute-done(%s)
        """,
        ("collective-permute", 40),
    ),
    "an all-to-all of many operands": (
        """
        %p = f32[1,10]{1,0} parameter(0)
        %q = f32[1,10]{1,0} parameter(1)
        ROOT %r = (f32[1,10]{1,0}, f32[1,10]{1,0}) all-to-all(%p, %q),\
 replica_groups={{0,1}}
        """,
        ("all-to-all", 80),
    ),
    "a send": (
        """
        %p = f32[10]{0} parameter(0)
        %t = token[] after-all()
        %s = (f32[10]{0}, u32[], token[]) send(%p, %t), channel_id=1
        %d = token[] send-done(%s), channel_id=1
        ROOT %r = f32[10]{0} copy(%p), control-predecessors={%d}
        """,
        ("send", 40),
    ),
    "a broadcast": (
        """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} collective-broadcast(%p), replica_groups={{0,1}}
        """,
        ("collective-broadcast", 40),
    ),
    "a reduce-scatter in its asynchronous form": (
        """
        %p = f32[80]{0} parameter(0)
        %s = ((f32[80]{0}), f32[10]{0}) reduce-scatter-start(%p), channel_id=1,\
 replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add, calls=%add
        ROOT %d = f32[10]{0} reduce-scatter-done(%s)
        """,
        ("reduce-scatter", 320),
    ),
}


def only(text: str) -> Collective:
    """The only collective of a program, in no conditional and no loop."""
    cost = collectives(text)
    (collective,) = cost.collectives
    assert cost.most == cost.always == collective.bytes
    assert collective == (collective.operation, collective.bytes, False, 1)
    return collective


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_the_operands_of_a_collective_are_what_a_worker_sends(name):
    body, expected = INSTRUCTIONS[name]
    assert only(program(body))[:2] == expected


def test_a_wrapped_collective_counts_once():
    wrapped = """
        %async_computation (q: f32[80]) -> f32[10] {
          %q = f32[80]{0} parameter(0)
          ROOT %rs = f32[10]{0} reduce-scatter(%q), channel_id=1,\
 replica_groups=[1,8]<=[8], use_global_device_ids=true, dimensions={0}, to_apply=%add
        }, execution_thread="parallel"
        """
    text = program(
        """
        %p = f32[80]{0} parameter(0)
        %s = ((f32[80]{0}), f32[10]{0}) async-start(%p), calls=%async_computation
        %u = ((f32[80]{0}), f32[10]{0}) async-update(%s), calls=%async_computation
        ROOT %d = f32[10]{0} async-done(%u), calls=%async_computation
        """,
        wrapped,
    )
    assert only(text) == ("reduce-scatter", 320, False, 1)


@pytest.mark.parametrize(
    "calling",
    [
        "call(%p), to_apply=%inner",
        "fusion(%p), kind=kLoop, calls=%inner",
        'custom-call(%p), custom_call_target="f", calls=%inner',
    ],
)
def test_called_computations_are_read(calling):
    """GPUs have calls for command buffers, TPUs fusions for fused collectives."""
    inner = """
        %inner (q: f32[10]) -> f32[10] {
          %q = f32[10]{0} parameter(0)
          ROOT %r = f32[10]{0} all-reduce(%q), replica_groups={{0,1}}, to_apply=%add
        }
        """
    body = f"%p = f32[10]{{0}} parameter(0)\nROOT %c = f32[10]{{0}} {calling}"
    assert only(program(body, inner)) == ("all-reduce", 40, False, 1)


@pytest.mark.parametrize(
    "groups",
    [
        "replica_groups={{0},{1},{2},{3}}",
        "replica_groups={{0}}",
        "replica_groups=[8,1]<=[8]",
        "replica_groups=mesh['workers'=8,'model'=1] {'model'}",
        "replica_groups=mesh['workers'=8] {}",
        "source_target_pairs={{0,0},{1,1},{12,12}}",
    ],
)
def test_groups_of_one_send_nothing(groups):
    text = program(
        f"""
        %p = f32[10]{{0}} parameter(0)
        ROOT %r = f32[10]{{0}} collective-permute(%p), channel_id=1, {groups}
        """
    )
    assert collectives(text) == (0, 0, ())


@pytest.mark.parametrize(
    "groups",
    [
        "replica_groups={{0,1},{2}}",
        "replica_groups={{0},{1,2}}",
        "replica_groups=[1,8]<=[8]",
        "replica_groups=[8,10]<=[80]",
        "replica_groups={}",
        "replica_groups=mesh['workers'=8,'model'=1] {'workers','model'}",
        "source_target_pairs={{0,0},{1,2},{2,1}}",
        "source_target_pairs={{1,11}}",
    ],
)
def test_groups_of_more_than_one_send(groups):
    text = program(
        f"""
        %p = f32[10]{{0}} parameter(0)
        ROOT %r = f32[10]{{0}} collective-permute(%p), channel_id=1, {groups}
        """
    )
    assert collectives(text).most == 40


@pytest.mark.parametrize(("worker_of", "sent"), [((0, 0, 1, 1), 0), ((0, 1, 0, 1), 80)])
def test_what_stays_within_a_worker_is_not_sent(worker_of, sent):
    """What is sent counts on all devices of the worker."""
    text = program(
        """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} all-reduce(%p), channel_id=1,\
 replica_groups={{0,1},{2,3}}, to_apply=%add
        """
    )
    assert collectives(text, worker_of).most == sent
