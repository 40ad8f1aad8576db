"""The verbs of the command line, one file each; `options` and `output` are what they share."""
