"""Populations trained while processes, nodes and disks fail at random moments, drawn from a seed."""
