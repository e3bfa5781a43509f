"""What comes of showing an item: probabilities of click, cart, purchase; dwell time and value."""
