"""Regenerates zoos: recipes, the plan they expand to, the training of one member, and the population over processes.

Run from the repository (`python -m training`); the wheel holds `vitzoo` alone, and `vitzoo` never imports this package.
"""
