"""Tests of tables for the terminal."""

import io

import pytest
from rich.console import Console

from experiments.utils.tables import narrow


@pytest.mark.parametrize("caption", [None, "below"])
def test_names_are_never_wrapped(caption):
    """Columns of numbers are, where there is too little room for both."""
    name = "a name of 25 characters..."
    table = narrow("method", "above", caption)
    table.add_column("numbers")
    table.add_row(name, "1 2 3 4 5 6 7 8 9")
    console = Console(width=36, record=True, file=io.StringIO())
    console.print(table)
    lines = console.export_text().splitlines()
    assert lines[0].strip() == "above"
    assert any(name in line for line in lines)
    assert (lines[-1].strip() == "below") == (caption is not None)
