"""The stores of users and items on a Redis or Valkey server."""
