"""Local search over whole placements, with groups of different sizes."""
