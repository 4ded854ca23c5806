"""Two workers with a quadratic each: Figures 1 and 2 of the GMC paper."""
