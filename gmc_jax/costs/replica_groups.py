"""Reading from the text of a program which devices a collective runs between."""

import math
import re
from collections.abc import Sequence

import numpy as np

_MESH_AXIS = r"'([^']*)'=(\d+)"
_GROUP_AXIS = r"'([^']*)'(?::\((\d+)\)(\d+))?"


def within(attributes: str, worker_of: Sequence[int] | None) -> bool:
    """Whether each group of a collective lies in one worker, so that none sends."""
    groups = groups_in(attributes)
    if worker_of is None:
        return all(len(set(group)) == 1 for group in groups or [[0, 1]])
    everyone = [range(len(worker_of))]
    return all(
        len({worker_of[device] for device in group}) == 1
        for group in groups or everyone
    )


def groups_in(attributes: str) -> list[list[int]]:
    """Returns the groups of devices of a collective; empty if it names none."""
    listed = re.search(
        r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]+\},?)+)\}", attributes
    )
    if listed:
        groups = re.findall(r"\{([\d,]+)\}", listed[1])
        return [[int(device) for device in group.split(",")] for group in groups]
    counted = re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    )
    if counted:
        shape, sizes, order = map(_numbers, counted.groups())
        devices = np.arange(math.prod(sizes)).reshape(sizes)
        devices = devices.transpose(order) if order else devices
        return devices.reshape(shape).tolist()
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\]"
        r"(?:, device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\))? \{(.*?)\}",
        attributes,
    )
    if mesh:
        # `'axis':(a)b` views an axis as [a, b, rest], and groups the devices along b.
        sizes = {axis: int(size) for axis, size in re.findall(_MESH_AXIS, mesh[1])}
        taken = {
            axis: (int(major or 1), int(part or sizes[axis]))
            for axis, major, part in re.findall(_GROUP_AXIS, mesh[4])
        }
        shape, grouped_axes = [], []
        for axis, size in sizes.items():
            major, part = taken.get(axis, (size, 1))
            shape += [major, part, size // (major * part)]
            grouped_axes.append(len(shape) - 2)
        devices = np.arange(math.prod(shape))
        if mesh[2]:
            devices = devices.reshape(_numbers(mesh[2])).transpose(_numbers(mesh[3]))
        devices = devices.reshape(shape)
        last_axes = range(-len(grouped_axes), 0)
        devices = np.moveaxis(devices, grouped_axes, last_axes)
        group_size = math.prod(part for _, part in taken.values())
        return devices.reshape(-1, group_size).tolist()
    return []


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number]
