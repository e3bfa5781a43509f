"""Ranking: scores, the index, the list that follows from them, and why an item is in it."""
