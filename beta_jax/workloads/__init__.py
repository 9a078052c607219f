"""Workloads: arrival processes, sampled, merged and joined into requests, and files of requests."""
