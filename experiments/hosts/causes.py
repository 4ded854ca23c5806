"""Why JAX's C++ ended a process: the line that matters, out of what it logged."""

import re

_HEAD = r"[IWEF]\d{4} [\d:.]+ +\d+ \S+:\d+\] ?"
_LOG = re.compile(rf"({_HEAD})(.*)", re.DOTALL)
_NEXT = re.compile(rf"^(?={_HEAD}|Traceback )", re.MULTILINE)
_MORE = ("RPC: ", "Additional GRPC ", ":UNKNOWN:")
_STACK = "*** Check failure stack trace: ***"
_SILENT = (
    "has fallen silent: it has failed, or was killed or stopped, or its network is "
    "down. Its own output says why."
)


def readable(output: str) -> str:
    """What a process wrote to its standard error, without what C++ logged.

    Where C++ ended the process, its cause in words is the last line.
    """
    end = cause(output)
    kept = []
    for part in _NEXT.split(output):
        lines = part.splitlines()
        if _LOG.match(part):
            # Where C++ ended it, nobody else had a word after C++'s first.
            lines = [] if end else lines[1:]
        kept += [line for line in lines if not line.startswith(_MORE)]
    return "\n".join(filter(None, ["\n".join(kept).strip(), end]))


def cause(output: str) -> str:
    """Why C++ ended a process, in a line; nothing if it did not."""
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
            "the processes have not found each other in time: process 0 did not answer "
            "at the coordinator's address, or others did not come."
        )
    if re.search("Heartbeat|Failed to send RPC|Socket closed", status):
        return f"process 0, with which the others register, {_SILENT}"
    return f"JAX's coordination ended it: {' '.join(status.split())}"
