"""From what is known of a user to a ranked, explained answer."""
