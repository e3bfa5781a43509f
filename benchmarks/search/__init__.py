"""How good searches are: one full grid, and searches replayed over it."""
