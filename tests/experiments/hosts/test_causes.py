"""The cause of a failure, extracted from the standard error of a process."""

import pytest

from experiments.hosts import causes

STACK = """*** Check failure stack trace: ***
    @     0x7f2d04e40634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
    @     0x7f2d0d0571f5  (unknown)
"""
FATAL = (
    "F1129 23:23:41.911169    8739 client.h:80] Terminating process because the JAX "
    "distributed service detected fatal errors. This most likely indicates that "
    "another task died; see the other task logs for more details. absl::Status: "
)
DIED = """The following tasks are unhealthy (stopped sending heartbeats):
1
The tasks have crashed. Check the task logs for an earlier error, or scheduler events \
(e.g. preemption, eviction) to debug further."""
WHO_DIED = f"""\
E1129 23:24:05.912266    9050 coordination_service.cc:1549] [1949325387716594110] Use \
error polling to propagate the following error to all tasks: UNAVAILABLE: {DIED} \
[type.googleapis.com/tensorflow.CoordinationServiceError='']
E1129 23:24:05.912828    9061 coordination_service_agent.cc:289] Polled an error from \
coordination service (this can be an error from this or another task).
{FATAL}UNAVAILABLE: {DIED}

RPC: /xla.coordination.CoordinationService/PollForError
{STACK}"""
FIRST_DIED = f"""\
{FATAL}UNAVAILABLE: Failed to send RPC to coordination service. Either the leader \
task was preempted/died/restarted unexpectedly or this task has network issues.
Additional GRPC error information from remote target coordination_service while \
calling \
/xla.coordination.CoordinationService/PollForError:
:UNKNOWN:Error received from peer  {{grpc_message:"Socket closed", grpc_status:14}}
{STACK}"""
FIRST_STOPPED = f"""\
{FATAL}DEADLINE_EXCEEDED: Deadline Exceeded

RPC: /xla.coordination.CoordinationService/Heartbeat
{STACK}"""
NOBODY_CAME = f"""\
{FATAL}DEADLINE_EXCEEDED: Deadline Exceeded

RPC: /xla.coordination.CoordinationService/RegisterTask
{STACK}"""
ANOTHER = f"{FATAL}INTERNAL: something\nnew\n{STACK}"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (WHO_DIED, "process 1 stopped responding"),
        (WHO_DIED.replace("\n1\n", "\n1,3\n"), "process 1, 3 stopped responding"),
        (FIRST_DIED, "process 0, where all processes register, stopped responding"),
        (FIRST_STOPPED, "process 0, where all processes register, stopped"),
        (NOBODY_CAME, "the processes did not find each other in time"),
        (ANOTHER, "JAX's coordination service ended it: INTERNAL: something new"),
    ],
)
def test_the_cause_is_the_last_line(output, line):
    """The last line was that of a C++ stack trace, and the cause was inside it."""
    *before, last = causes.readable(f"a warning\n{output}").splitlines()
    assert before == ["a warning"]
    assert last.startswith(line)


def test_output_of_python_stays():
    log = "W1129 23:23:41.910628    8739 x.cc:147] Failed\nRPC: /some\n"
    error = "Traceback (most recent call last):\n  line 1\nValueError: too large"
    assert causes.readable(f"first\n{log}{error}") == f"first\n{error}"
    assert causes.readable(f"{log}ValueError: too large") == "ValueError: too large"
    assert not causes.cause(f"{log}{error}")
