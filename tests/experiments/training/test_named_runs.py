"""Named runs."""

import pytest

from experiments.training import named_runs as runs
from experiments.training.config import Config


@pytest.mark.parametrize("name", runs.names())
def test_a_named_run_says_how_to_start_it_and_what_to_expect(name):
    module = runs.find(name)
    command = "python -m experiments" + ("" if name == "digits" else f" run {name}")

    first, *_, rest = (module.__doc__ or "").partition("\n")
    assert first.endswith(".")
    assert f"Command: {command}\n" in rest
    assert "Time: " in rest
    assert "Expect: " in rest
    assert isinstance(module.config, Config)


def test_an_unknown_name_is_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no run 'digit'.* digits, digits_iid"):
        runs.find("digit")
