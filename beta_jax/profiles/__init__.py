"""Profiles: what a model type costs, per parallel configuration and batch size."""
