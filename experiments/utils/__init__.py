"""What all experiments share: signals, failures, the terminal, units, environment."""
