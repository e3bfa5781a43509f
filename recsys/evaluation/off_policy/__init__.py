"""What a policy would have earned on lists that another one showed and logged with propensities."""
