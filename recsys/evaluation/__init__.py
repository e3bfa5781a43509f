"""Evaluation: metrics, baselines, the report, and the gate in front of the registry."""
