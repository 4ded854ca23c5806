"""Going on with another number of workers."""
