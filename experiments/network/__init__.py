"""A laboratory: hosts on one machine, joined by links of any rate."""
