"""A generated shop that drives the real service for some nights; no real shop's figures."""
