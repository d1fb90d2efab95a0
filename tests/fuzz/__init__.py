"""Hostile files: thousands of damaged ones for every reader, each rebuilt from its kind, a seed and a number.

What is allowed: to be read well, or to be refused in one line; within 10 seconds of the processor and 1 GiB; and
nothing that a file asks for is run. `python tests/fuzz --help` says how to run it.
"""
