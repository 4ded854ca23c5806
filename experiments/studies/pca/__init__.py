"""Katyusha X and SVRG on a leading eigenvector."""
