"""The jobs: thin shells around `recsys` that use Ray Data, Train and Tune."""
