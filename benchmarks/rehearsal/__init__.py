"""A cluster of several hosts on one machine, and what is done to it."""
