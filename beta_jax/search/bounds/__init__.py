"""Upper bounds on what any placement, or any placement on given groups, can serve."""
