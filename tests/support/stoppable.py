"""The command line as a process that hears SIGINT wherever the tests run."""

import sys

# In a shell's background, processes start with SIGINT ignored, and so do theirs.
_PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments", run_name="__main__", alter_sys=True)
"""

EXPERIMENTS = (sys.executable, "-c", _PROGRAM)
"""`python -m experiments`; its command and options follow."""
