"""Every method of the library on one problem, in one table."""
