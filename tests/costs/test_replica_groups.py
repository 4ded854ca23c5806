"""Tests of groups of devices, in all forms that XLA prints."""

import pytest

from gmc_jax.costs.replica_groups import groups_in, within

# The workers of four devices: adjacent devices are one worker, or every second is.
BESIDE, ACROSS = (0, 0, 1, 1), (0, 1, 0, 1)
# For each group, the assignments in which it lies between workers.
GROUPS = {
    "replica_groups={{0,1},{2,3}}": ACROSS,
    "replica_groups={{0,2},{1,3}}": BESIDE,
    "replica_groups={{0,1,2,3}}": (BESIDE, ACROSS),
    "replica_groups={}": (BESIDE, ACROSS),
    "replica_groups={{0},{1},{2},{3}}": (),
    "replica_groups=[2,2]<=[4]": ACROSS,
    "replica_groups=[2,2]<=[2,2]T(1,0)": BESIDE,
    "replica_groups=[1,4]<=[4]": (BESIDE, ACROSS),
    "replica_groups=mesh['a'=2,'b'=2] {'a'}": BESIDE,
    "replica_groups=mesh['a'=2,'b'=2] {'b'}": ACROSS,
    "replica_groups=mesh['a'=2,'b'=2] {'a','b'}": (BESIDE, ACROSS),
    "replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}": ACROSS,
    "replica_groups=mesh['a'=1,'b'=4], device_ids=([2,2]T(1,0)) {'b':(1)2}": ACROSS,
    "replica_groups=mesh['a'=4] {'a':(1)2}": BESIDE,
    "replica_groups=mesh['a'=4] {'a':(2)2}": ACROSS,
    "source_target_pairs={{0,1},{1,0}}": ACROSS,
    "source_target_pairs={{0,2},{1,3}}": BESIDE,
    "source_target_pairs={{3,0}}": (BESIDE, ACROSS),
}


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("worker_of", [BESIDE, ACROSS])
def test_groups_within_a_worker_are_told_from_groups_between_workers(groups, worker_of):
    attributes = f"channel_id=1, {groups}, to_apply=%add, metadata={{op_name='f/[1]'}}"
    between = GROUPS[groups] in (worker_of, (BESIDE, ACROSS))
    assert within(attributes, worker_of) == (not between)


@pytest.mark.parametrize("groups", GROUPS)
def test_if_each_device_is_a_worker_only_groups_of_one_are_within(groups):
    assert within(groups, None) == within(groups, range(4)) == (not GROUPS[groups])


def test_a_mesh_of_three_axes_may_be_grouped_along_any_of_them():
    mesh = "replica_groups=mesh['a'=2,'b'=2,'c'=2] "
    assert groups_in(mesh + "{'b','c'}") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups_in(mesh + "{'a','c'}") == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert groups_in(mesh + "{'b'}") == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert groups_in(mesh + "{}") == [[device] for device in range(8)]


@pytest.mark.parametrize(
    "unknown", ["", "replica_groups=mesh['a'=4], device_ids=(3,1,0,2) {'a'}"]
)
def test_a_collective_that_names_no_groups_is_between_all_devices(unknown):
    assert groups_in(unknown) == []
    assert not within(unknown, BESIDE)
    assert not within(unknown, None)
