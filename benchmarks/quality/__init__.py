"""Ranking quality, beside what one would pick instead."""
