"""Merge checkpoints into one model, and follow the line between two models."""
