"""Two workers, two quadratics: Figures 1 and 2 of the GMC paper."""
