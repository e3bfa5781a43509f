"""What `prepare` does with a log, what it would meet, and what it leaves behind."""
