"""Populations that are trained in a storm: processes, nodes and disks fail at random moments, drawn from a seed."""
