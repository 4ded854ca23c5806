"""Adam on a small transformer: what compresses it, at which ratio, and what fails."""
