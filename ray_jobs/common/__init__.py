"""What several jobs share: joining a cluster, the text store, keeping and giving up a training."""
