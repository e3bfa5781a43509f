"""Ranking: scores, retrieval, re-ranking, exploration, explanations."""
