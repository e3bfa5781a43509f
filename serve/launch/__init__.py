"""Starting, updating and ending a service."""
