"""Weights as inputs of a model: flat vectors, layer statistics, tokens and graphs."""
