"""The command line and the folder that a run writes to."""
