"""Studies of single questions, one folder each."""
