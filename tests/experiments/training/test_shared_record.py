"""One record for all processes: the first one writes, the others follow."""

import pytest

from experiments.training import record, shared_record


def test_the_only_process_writes_the_record(tmp_path):
    with shared_record.begin(tmp_path, "run", {"seed": 0}) as log:
        log.append(kind="measurement", rate=1.0)
        assert record.read(log.path) == log.rows


def test_a_follower_reads_the_rows_and_keeps_its_own_in_memory(tmp_path):
    with record.create(tmp_path, "run", {}) as log:
        log.append(kind="measurement", rate=1.0)
        before = (log.path / record.LOG).read_bytes()
        with shared_record.Follower(log.path) as follower:
            assert follower.rows == log.rows
            follower.append(kind="measurement", rate=2.0)
            assert [row["rate"] for row in follower.rows[1:]] == [1.0, 2.0]
        assert (log.path / record.LOG).read_bytes() == before


def test_a_follower_that_cannot_see_the_record_says_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"process 0 cannot see .*--results"):
        shared_record.Follower(tmp_path)
