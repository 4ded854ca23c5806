"""Named runs: a file is one run, and its docstring says what to expect of it."""
