"""Training: what one worker does, over any iterator of histories, without Ray."""
