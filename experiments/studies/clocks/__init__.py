"""Loss against simulated seconds."""
