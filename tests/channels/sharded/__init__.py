"""Tests of sharded."""
