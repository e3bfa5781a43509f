"""The deployments on Ray Serve, and the environment they run in."""
