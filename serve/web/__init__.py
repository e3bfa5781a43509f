"""What browsers get of the service."""
