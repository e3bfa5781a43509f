"""Authentication: API keys, user tokens, rights and rates."""
