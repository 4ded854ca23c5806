"""The command line as a process that SIGINT stops wherever the tests run."""

import sys

# A shell starts background processes with SIGINT ignored, and children inherit that.
_PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments", run_name="__main__", alter_sys=True)
"""

EXPERIMENTS = (sys.executable, "-c", _PROGRAM)
"""`python -m experiments`; its command and options follow."""
