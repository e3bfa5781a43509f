"""The protocol of the gRPC surface, and what is generated from it (`make protos`)."""
