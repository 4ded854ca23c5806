"""Channels: averages over workers, the only collectives of the package."""
