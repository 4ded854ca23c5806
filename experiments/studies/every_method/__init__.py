"""Every method of the library on one problem."""
