"""Experiments: what a figure is made of, how its points are run, and how tables become pictures."""
