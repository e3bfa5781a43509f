"""The service: recommendations, rankings and live events over HTTP and gRPC, on Ray Serve."""
