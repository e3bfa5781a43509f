"""What lies on disk after a run: checkpoint, bundle, registry."""
