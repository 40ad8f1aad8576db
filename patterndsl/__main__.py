"""`python -m patterndsl` is the command line."""

import sys

from patterndsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
