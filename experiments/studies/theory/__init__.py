"""The theory of GMC and GMC+ in numbers."""
