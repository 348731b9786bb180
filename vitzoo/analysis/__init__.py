"""Analyse a selection: what its members predict, how they differ, and by which factor."""
