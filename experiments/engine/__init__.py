"""How points become results: what determines each, which run together, where they are kept."""
