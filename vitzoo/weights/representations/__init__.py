"""Representations of weights: a member's flat vector as statistics, tokens or a graph."""
