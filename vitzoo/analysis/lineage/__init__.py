"""Guess the family tree from weights, and score the guesses."""
