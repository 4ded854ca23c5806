"""Whether what the planner chooses reaches the loss of the dense method."""
