"""Methods: one published method a file, each a chain with its paper's defaults."""
