"""The headline spec, from its text to a checked and timed attention function on the CPU.

    python3 examples/headline.py            # n = 8192, 4 heads of 64
    python3 examples/headline.py --n 2048

Where patterndsl is not installed, it is put into the virtual environment .venv beside this checkout first.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "examples" / "headline.attn"


def install_and_restart() -> None:
    """Go on in .venv, made and filled if need be."""
    environment = ROOT / ".venv"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if Path(sys.executable) == python:
        sys.exit("patterndsl is not importable, though it was just installed")
    if not python.exists():
        print(f"making the virtual environment {environment.name} …", flush=True)
        venv.create(environment, with_pip=True)
    print("installing patterndsl into it …", flush=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(ROOT)]
    if subprocess.run(pip, check=False).returncode:
        sys.exit("the installation failed (see above)")
    sys.exit(subprocess.run([python, __file__, *sys.argv[1:]], check=False).returncode)


def main() -> None:
    import patterndsl as pd
    from patterndsl.trial import Shape, trial

    parser = argparse.ArgumentParser(description="Parse, analyse, compile and run the headline spec.")
    parser.add_argument("--n", type=int, default=8192, help="number of tokens")
    n = parser.parse_args().n

    shape = Shape(n, heads=4, kv_heads=4, head_dim=64)
    spec = pd.load(SPEC)
    print(pd.analyze(spec, n=n, num_heads=shape.heads, head_dim=shape.head_dim, itemsize=4), end="\n\n")
    print(pd.compile(spec).plan(n, num_heads=shape.heads).explain(), end="\n\n")
    print("running, comparing with the reference, timing dense attention …", flush=True)
    result = trial(spec, shape, repeats=3)
    print(result)
    if not result.error < 1e-4:
        sys.exit("the result is not the reference's")


if __name__ == "__main__":
    if importlib.util.find_spec("patterndsl") is None:
        install_and_restart()
    main()
