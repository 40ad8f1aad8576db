"""The verbs of the command line, one file each: ``add_arguments`` says what it takes, ``main`` does it.

The first line of a verb's docstring is its help. `options` and `output` are what the verbs share.
"""
