"""What has happened to items, what they share, and users, as of a night."""
