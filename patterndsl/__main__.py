"""`python -m patterndsl` is the command line."""

from patterndsl.cli import main

if __name__ == "__main__":
    main()
