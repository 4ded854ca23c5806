"""Training with one method after another, and the record, tables and figures."""
