"""The predicted time of a step over a link."""
