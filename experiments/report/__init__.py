"""How results become tables, intervals and figures; never imports JAX."""
