"""Data sets, and how their samples are divided among workers."""
