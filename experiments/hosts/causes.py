"""Extracts from the log of JAX's C++ why it ended a process."""

import re

_HEAD = r"[IWEF]\d{4} [\d:.]+ +\d+ \S+:\d+\] ?"
_LOG = re.compile(rf"({_HEAD})(.*)", re.DOTALL)
_NEXT = re.compile(rf"^(?={_HEAD}|Traceback )", re.MULTILINE)
_MORE = ("RPC: ", "Additional GRPC ", ":UNKNOWN:")
_STACK = "*** Check failure stack trace: ***"
_SILENT = (
    "stopped responding: it failed, or it was killed or suspended, or its network is "
    "down. Its own output says why."
)


def readable(output: str) -> str:
    """The standard error of a process, without the log lines of C++.

    If C++ ended the process, the last line describes the cause.
    """
    end = cause(output)
    kept = []
    for part in _NEXT.split(output):
        lines = part.splitlines()
        if _LOG.match(part):
            # If C++ ended the process, Python printed nothing after C++'s first line.
            lines = [] if end else lines[1:]
        kept += [line for line in lines if not line.startswith(_MORE)]
    return "\n".join(filter(None, ["\n".join(kept).strip(), end]))


def cause(output: str) -> str:
    """Describes in one line why C++ ended a process; empty if C++ did not."""
    logged = [match for match in map(_LOG.match, _NEXT.split(output)) if match]
    fatal = [match[2] for match in logged if match[1].startswith("F")]
    if not fatal:
        return ""
    status = fatal[-1].split(_STACK)[0].rpartition("absl::Status: ")[2].strip()
    if silent := re.search(r"stopped sending heartbeats\):\s+([\d,\s]+)", status):
        lost = ", ".join(re.findall(r"\d+", silent[1]))
        return f"process {lost} {_SILENT}"
    if "RegisterTask" in status:
        return (
            "the processes did not find each other in time: process 0 did not answer "
            "at the coordinator's address, or other processes did not start."
        )
    if re.search("Heartbeat|Failed to send RPC|Socket closed", status):
        return f"process 0, where all processes register, {_SILENT}"
    return f"JAX's coordination service ended it: {' '.join(status.split())}"
