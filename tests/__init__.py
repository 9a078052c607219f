"""A package, or Ciw, which installs its own tests as `tests`, would hide `tests.fuzz`."""
