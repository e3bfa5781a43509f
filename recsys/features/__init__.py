"""Features: popularity, item-to-item relations, side features, candidates, windows of events."""
