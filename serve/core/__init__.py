"""The service without HTTP, gRPC or Ray."""
