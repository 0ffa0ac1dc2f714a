"""What a run can be asked to do: one table of options."""
