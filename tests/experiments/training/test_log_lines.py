"""Lines of a log become rows, and a broken line is reported."""

import json

import pytest

from experiments.training.log_lines import parse, parse_line

ROWS = [{"kind": "header", "config": {"seed": 1}}, {"kind": "summary", "step": 2}]
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.jsonl"


def test_a_log_is_its_rows_and_where_they_end(log):
    log.write_bytes(b"".join(LINES))
    assert parse(log) == (ROWS, [len(LINES[0]), len(LINES[0] + LINES[1])])


def test_a_last_line_that_is_cut_short_is_left_out(log, capsys):
    log.write_bytes(LINES[0] + LINES[1][:-1])
    assert parse(log) == (ROWS[:1], [len(LINES[0])])
    assert "was cut short and is left out" in capsys.readouterr().err


def test_another_broken_line_is_an_error_with_its_number(log):
    log.write_bytes(b"{broken\n" + LINES[1])
    with pytest.raises(ValueError, match=r"line 1 of .*log\.jsonl is broken"):
        parse(log)


def test_a_column_that_is_missing_is_an_error_with_the_log(log):
    row = parse_line(LINES[0], log)
    for lacking in (row, row["config"]):
        with pytest.raises(ValueError, match=r"log\.jsonl has no 'rate'.* version"):
            lacking["rate"]
