"""Several processes that train together, here or each on a host of its own."""
