"""The figures of the paper, a file each."""
