"""Bounds on what a spec may ask for. A spec is untrusted input: each bound has an error of its own."""

MAX_SOURCE = 262_144  # characters
MAX_TOKENS = 50_000
MAX_DEPTH = 100  # of nested expressions and brackets
MAX_NUMBER = 10**15  # literals and computed values, so that products with small factors stay in 64 bits
MAX_LENGTH = 10_000  # members of a list, call, chain or block
MAX_STATEMENTS = 1_000  # of a file
MAX_EXPANDED = 100_000  # nodes after inlining
MAX_ERRORS = 50  # after which parsing stops
