"""The stores of user histories."""
