"""Drift: what came since a bundle was made, beside what it was made from."""
