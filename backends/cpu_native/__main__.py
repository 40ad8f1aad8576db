"""``python -m patterndsl.backends.cpu_native build`` compiles it; ``status`` says whether it is built."""

from __future__ import annotations

import argparse
import sys

from patterndsl.backends.cpu_native import build


def main() -> int:
    """Exit code 0 where the kernel is built and loads, else 1."""
    parser = argparse.ArgumentParser(prog="python -m patterndsl.backends.cpu_native", description=__doc__)
    parser.add_argument("command", choices=("build", "status"))
    command = parser.parse_args().command
    print(f"instruction set  {build.instruction_set()}")
    print(f"compiler         {build.compiler() or 'none found'}")
    print(f"library          {build.library()}")
    if command == "build":
        try:
            build.build()
        except (build.BuildError, OSError) as error:
            print(f"not built: {error}", file=sys.stderr)
            return 1
    why = build.load()
    print("built: backend='auto' uses it on the CPU" if why is None else f"not built: {why}")
    return 0 if why is None else 1


if __name__ == "__main__":
    sys.exit(main())
