"""Tests of whole programs as XLA prints them, one of them for GPUs."""

import pytest

from gmc_jax.costs.hlo import collectives
from tests.support.hlo_text import program, reducing


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


def test_a_computation_that_is_not_called_sends_nothing():
    text = program("%p = f32[] parameter(0)", reducing("unused", 3))
    assert collectives(text) == (0, 0, ())


def test_names_and_strings_like_those_of_collectives_do_not_count():
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
