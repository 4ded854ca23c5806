"""Every method that sends less than dense, at equal steps and at equal bytes."""
