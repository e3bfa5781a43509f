"""Request ids, the trace of a request, and metrics."""
