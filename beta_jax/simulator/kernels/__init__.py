"""Kernels: the queueing dynamics as compiled programs, and the choice between them."""
