"""Weights as training data: torch data sets, scaling fitted on train, and targets."""
