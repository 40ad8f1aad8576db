"""Every check of the project, on a fresh virtual environment: ruff, mypy and the whole test suite.

    python3 tests/run.py            make .venv-test, install the checkout in it as a wheel, check everything
    python3 tests/run.py --keep     reuse .venv-test if it is there (the checkout is installed anew)
    python3 tests/run.py -- -k plan what follows `--` goes to pytest

Needs nothing but Python. Exits with an error if any check failed; pytest's closing line is the last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-test"
EXTRAS = "test,gpu-check,tpu-check" if sys.platform == "linux" else "test"
STATIC = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every check on a fresh virtual environment.")
    parser.add_argument("--keep", action="store_true", help="reuse .venv-test if it is there")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    arguments = parser.parse_args()
    python = install(keep=arguments.keep)
    # The installed wheel is tested: without PYTHONSAFEPATH the checkout would be imported in its place.
    # And JAX is told of no GPU: its compiler is there, what it takes to run on one is not.
    environment = {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PATTERNDSL_INSTALLED": str(ENVIRONMENT),
        "JAX_PLATFORMS": "cpu",
    }
    environment.pop("PYTHONPATH", None)
    failed = [name for name, command in STATIC.items() if run([python, "-m", *command], environment)]
    if failed:
        print(f"failed: {', '.join(failed)} (see above; the tests follow)", flush=True)
    tests = run(
        [python, "-m", "pytest", "-n", "2", "--dist", "worksteal", "--durations=15", *arguments.pytest],
        environment,
    )
    return tests or int(bool(failed))


def install(keep: bool) -> Path:
    """The environment's Python, with the checkout and its test tools installed in it."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (keep and python.exists()):
        venv.EnvBuilder(clear=True, with_pip=True).create(ENVIRONMENT)
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what earlier builds left there
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[{EXTRAS}]"]
    if run(pip, dict(os.environ)) != 0:
        sys.exit("the installation failed")
    return python


def run(command: list[str | Path], environment: dict[str, str]) -> int:
    """Run in the root of the checkout and give back the exit code."""
    print("$", *(Path(c).name if i == 0 else c for i, c in enumerate(command)), flush=True)
    return subprocess.run([str(c) for c in command], cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
