"""The network laboratory: hosts on one machine, connected by links of any rate."""
