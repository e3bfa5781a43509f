"""What goes over the wire: requests, responses, ids, refusals, callers."""
