"""The GMC paper: its settings, its tables and our runs beside them."""
