"""A fuzzer: odd input in, success or an error of one to three lines that names the offender out.

    python -m tests.fuzz --seconds 60 --seed 0
    python -m tests.fuzz --seconds 600 --only commands,processes

What it finds is mended in the code, and becomes a test of the room that it belongs to.
"""
