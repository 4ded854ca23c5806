"""Compressors: lossy codes for one vector. They know neither seeds nor axes."""
