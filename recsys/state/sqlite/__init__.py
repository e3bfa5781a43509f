"""The stores of users and items in SQLite files."""
