"""The published placement policies (Beta, OSDI 2023, and the baselines it compares with)."""
