"""What was shown, and what came of it: exposures joined to their outcomes."""
