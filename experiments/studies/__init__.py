"""Studies of single questions: a folder each."""
