"""The service: recommendations, rankings and live events over HTTP, on Ray Serve."""
