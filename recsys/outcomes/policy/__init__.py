"""What another policy would have earned, from the lists that the service has logged."""
