"""The GMC paper's settings, and its tables beside our results."""
