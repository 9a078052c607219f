"""Kernels: the queueing dynamics (Beta, OSDI 2023, section 5) as compiled programs.

Integer-exact: a lane's result does not depend on the other lanes, on padding, on the kernel or on
the device. The caller guarantees that every clock, shifted by the bits of the packed index, is
below 2^62.
"""
