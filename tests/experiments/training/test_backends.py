"""Devices for workers."""

import jax
import pytest

from experiments.training.backends import mesh


def test_the_first_devices_hold_the_workers():
    assert mesh(3).devices.tolist() == jax.devices()[:3]
    assert mesh(3).axis_names == ("workers",)


def test_too_few_devices_are_an_error_with_two_remedies():
    with pytest.raises(
        ValueError, match=r"`workers` must be at most 8, .* got 9.*--backend simulate"
    ):
        mesh(9)
