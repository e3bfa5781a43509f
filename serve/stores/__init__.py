"""What the service keeps: users and their events, and what was shown."""
