"""Train one member. See `train.py`, whose docstring names the other modules."""
