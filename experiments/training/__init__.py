"""Training of methods one after another; records, tables and figures of the results."""
