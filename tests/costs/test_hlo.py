"""Reading collectives out of programs as XLA prints them, for CPU, GPU and TPU."""

import textwrap

import pytest

from gmc_jax.costs.hlo import Collective, collectives

ADD = """
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}
"""


def program(body: str, *computations: str, name: str = "jit_step") -> str:
    """A module around the lines of its entry computation, as XLA prints one."""
    header = (
        f"HloModule {name}, is_scheduled=true, entry_computation_layout="
        "{(f32[1000]{0})->(f32[8000]{0}, /*index=1*/f32[])}, num_partitions=8\n"
    )
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), "  ")
    entry = f"ENTRY %main.7_spmd (p: f32[1000]) -> f32[8000] {{\n{lines}\n}}\n"
    return "\n".join([header, ADD, *map(textwrap.dedent, computations), entry])


def only(text: str) -> Collective:
    cost = collectives(text)
    (collective,) = cost.collectives
    assert cost.most == cost.always == collective.bytes
    assert collective == (collective.operation, collective.bytes, False, 1)
    return collective


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
    "sugar for an asynchronous form": (
        """
        %p = f32[80]{0} parameter(0)
        %s = ((f32[80]{0}), f32[10]{0}) reduce-scatter-start(%p), channel_id=1,\
 replica_groups=[1,8]<=[8], dimensions={0}, to_apply=%add, calls=%add
        ROOT %d = f32[10]{0} reduce-scatter-done(%s)
        """,
        ("reduce-scatter", 320),
    ),
}


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
    """A command buffer of a GPU is a call, a fused collective of a TPU a fusion."""
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
    """And what is sent counts on all devices of the worker."""
    text = program(
        """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} all-reduce(%p), channel_id=1,\
 replica_groups={{0,1},{2,3}}, to_apply=%add
        """
    )
    assert collectives(text, worker_of).most == sent


# Conditionals and loops.


def reducing(name: str, size: int, then: str = "") -> str:
    """A computation that all-reduces some floats, and has another line."""
    return f"""
%{name} (q: f32[{size}]) -> f32[{size}] {{
  %q = f32[{size}]{{0}} parameter(0)
  {then or "%nothing = s32[] constant(0)"}
  ROOT %r = f32[{size}]{{0}} all-reduce(%q), replica_groups={{{{0,1}}}}, to_apply=%add
}}
"""


IDLE = """
%idle (q: f32[]) -> f32[] {
  ROOT %q = f32[] parameter(0)
}
"""


def conditional(*branches: str) -> str:
    named = ", ".join(branches)
    return f"""
        %p = s32[] parameter(0)
        ROOT %c = f32[] conditional(%p, %p), branch_computations={{{named}}}
        """


def loop(body: str, config: str = "") -> str:
    return f"%w = (s32[]) while(%t), condition=%idle, body={body}{config}"


def known(trips: int) -> str:
    return (
        ', backend_config={"known_induction_variable":{"tuple_index":"0"},'
        '"known_init_step":{"init":"0","step":"1"},'
        f'"known_trip_count":{{"n":"{trips}"}},"dynamic_variables":[]}}'
    )


def test_a_conditional_counts_the_branch_that_sends_most():
    cost = collectives(
        program(
            conditional("%small", "%large", "%idle"),
            reducing("small", 3),
            reducing("large", 7),
            IDLE,
        )
    )
    assert (cost.most, cost.always) == (28, 0)
    assert cost.collectives == (
        ("all-reduce", 12, True, 1),
        ("all-reduce", 28, True, 1),
    )


def test_a_conditional_on_a_predicate_has_two_branches():
    body = """
        %p = pred[] parameter(0)
        %v = f32[5]{0} parameter(1)
        %first = f32[5]{0} all-reduce(%v), replica_groups={{0,1}}, to_apply=%add
        ROOT %c = f32[] conditional(%p, %v, %v), true_computation=%small,\
 false_computation=%large
        """
    cost = collectives(program(body, reducing("small", 3), reducing("large", 7)))
    assert (cost.most, cost.always) == (20 + 28, 20)
    assert [one.conditional for one in cost.collectives] == [False, True, True]


TRIPS = {
    "as printed": known(10),
    "old": ', backend_config="{\\"known_trip_count\\":{\\"n\\":\\"10\\"}}"',
}


@pytest.mark.parametrize("config", TRIPS.values(), ids=TRIPS.keys())
def test_a_loop_counts_all_its_rounds(config):
    cost = collectives(program(loop("%body", config), reducing("body", 3), IDLE))
    assert cost == (120, 120, (("all-reduce", 12, False, 10),))


def test_a_loop_of_unknown_length_counts_one_round():
    cost = collectives(program(loop("%body"), reducing("body", 3), IDLE))
    assert cost == (12, 12, (("all-reduce", 12, False, None),))


def test_a_loop_may_send_in_its_condition():
    text = program(loop("%idle").replace("condition=%idle", "condition=%asks"))
    text = text.replace(ADD, ADD + reducing("asks", 1) + IDLE)
    assert collectives(text) == (4, 4, (("all-reduce", 4, False, None),))


def test_loops_and_conditionals_nest():
    """A known loop of a conditional of an unknown loop of a known loop."""
    branch = "%c = f32[] conditional(%p, %p), branch_computations={%middle, %idle}"
    cost = collectives(
        program(
            loop("%outer", known(5)),
            reducing("outer", 1, then=branch),
            reducing("middle", 2, then=loop("%inner")),
            reducing("inner", 3, then=loop("%innermost", known(7))),
            reducing("innermost", 4),
            IDLE,
        )
    )
    assert cost.most == 5 * (4 + (8 + (12 + 7 * 16)))
    assert cost.always == 5 * 4
    assert set(cost.collectives) == {
        ("all-reduce", 4, False, 5),
        ("all-reduce", 8, True, 5),
        ("all-reduce", 12, True, None),
        ("all-reduce", 16, True, None),
    }


def test_known_and_unknown_loops_nest_both_ways():
    """The bytes count known rounds also where the number of all is not known."""
    for outer, inner in (("", known(7)), (known(7), "")):
        cost = collectives(
            program(
                loop("%outer", outer),
                reducing("outer", 1, then=loop("%inner", inner)),
                reducing("inner", 3),
                IDLE,
            )
        )
        assert cost.most == cost.always == (4 + 84 if not outer else 7 * (4 + 12))


# Programs.


def test_the_collectives_of_all_modules_add_up():
    body = """
        %p = f32[10]{0} parameter(0)
        ROOT %r = f32[10]{0} all-reduce(%p), replica_groups={{0,1}}, to_apply=%add
        """
    text = program(body, name="jit_one") + "\n\n" + program(body, name="jit_two")
    assert collectives(text).most == 80
    assert len(collectives(text).collectives) == 2


@pytest.mark.parametrize(
    "text", ["", "no program at all", program("%p = f32[] parameter(0)")]
)
def test_without_collectives_nothing_is_sent(text):
    assert collectives(text) == (0, 0, ())


def test_a_computation_that_nobody_calls_sends_nothing():
    text = program("%p = f32[] parameter(0)", reducing("unused", 3))
    assert collectives(text) == (0, 0, ())


def test_names_and_strings_that_look_like_collectives_are_none():
    text = program(
        """
        %p = f32[10]{0} parameter(0)
        %all-reduce.1 = f32[10]{0} add(%p, %p), metadata={op_name="all-gather(%p)"}
        ROOT %all-gather = f32[10]{0} fusion(%all-reduce.1), kind=kLoop, calls=%fused
        """,
        """
        %fused (q: f32[10]) -> f32[10] {
          %q = f32[10]{0} parameter(0)
          ROOT %all-to-all = f32[10]{0} negate(%q)
        }
        """,
    )
    assert collectives(text) == (0, 0, ())


GPU = """\
HloModule jit_checked, is_scheduled=true, input_output_alias={ {0}:\
 (0, {}, may-alias) },\
 entry_computation_layout={(f32[1000000]{0}, f32[1,1000000]{1,0})->(f32[1000000]{0})},\
 num_partitions=8, frontend_attributes={fingerprint_before_lhs="c0ffee"}

%wrapped_add_computation (param_0: f32[], param_1: f32[]) -> f32[] {
  %param_0 = f32[] parameter(0)
  %param_1 = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%param_0, %param_1), metadata={op_name="jit(f)/a=(b{c"}
}

%command_buffer (p.1: f32[1000], p.2: s32[1000]) -> (f32[8000], s32[8000]) {
  %p.1 = f32[1000]{0} parameter(0)
  %p.2 = s32[1000]{0} parameter(1)
  %all-gather-start.1 = ((f32[1000]{0}, s32[1000]{0}), (f32[8000]{0}, s32[8000]{0}))\
 all-gather-start(%p.1, %p.2), channel_id=1, replica_groups=[1,8]<=[8],\
 dimensions={0}, use_global_device_ids=true,\
 metadata={op_name="jit(checked)/shard_map/all_gather" source_file="all_gather.py"\
 source_line=77}, backend_config={"operation_queue_id":"0","wait_on_operation_queues"\
:[],"collective_backend_config":{"is_sync":true,"no_parallel_custom_call":false,\
"backend":"DEFAULT"},"force_earliest_schedule":false,"reification_cost":[]}
  ROOT %all-gather-done.1 = (f32[8000]{0}, s32[8000]{0})\
 all-gather-done(%all-gather-start.1), metadata={op_name="jit(checked)/all_gather"}
}

ENTRY %main.42_spmd (param.2: f32[1000000], param.3: f32[1,1000000]) -> (f32[1000000]) {
  %param.2 = f32[1000000]{0} parameter(0), sharding={replicated}
  %param.3 = f32[1,1000000]{1,0} parameter(1), sharding={devices=[8,1]<=[8]}
  %constant_1 = f32[2,2]{1,0} constant({ { 0, 1 }, { 2, 3 } })
  %custom-call.1 = (f32[1000]{0}, s32[1000]{0}, s8[8000]{0}) custom-call(%param.2),\
 custom_call_target="__cub$DeviceRadixSort", custom_call_has_side_effect=true
  %get-tuple-element.1 = f32[1000]{0} get-tuple-element(%custom-call.1), index=0
  %get-tuple-element.2 = s32[1000]{0} get-tuple-element(%custom-call.1), index=1
  %call = (f32[8000]{0}, s32[8000]{0}) call(%get-tuple-element.1,\
 %get-tuple-element.2), to_apply=%command_buffer
  ROOT %tuple = (f32[1000000]{0}) tuple(%param.2)
}
"""


def test_a_program_for_gpus_is_read():
    assert collectives(GPU) == (8000, 8000, (("all-gather", 8000, False, 1),))
