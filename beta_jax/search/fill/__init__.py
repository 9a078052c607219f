"""Filling given groups with replicas, guided by simulation (Beta, OSDI 2023, Algorithm 1)."""
