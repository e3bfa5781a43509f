"""Sizing: what the jobs of a log will take, by arithmetic from measured rates."""
