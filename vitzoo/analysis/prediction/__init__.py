"""Predict metrics and settings of checkpoints from their weights, beside what the recipe says."""
