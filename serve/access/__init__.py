"""Who may ask what: API keys, user tokens, rights and rates."""
