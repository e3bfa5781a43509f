"""What is good and what is fast, as commands whose results are stored."""
