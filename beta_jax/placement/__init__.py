"""Placements: the problem, what is placed where, group partitions, and what changes between two."""
