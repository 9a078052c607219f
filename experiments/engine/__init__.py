"""From points to stored results: what has to be computed, in which order, and what is kept."""
