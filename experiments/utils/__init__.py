"""Terminals, signals, failures and units."""
