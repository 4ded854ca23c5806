"""The theory of GMC and GMC+, checked numerically."""
