"""What a step would take over a link."""
