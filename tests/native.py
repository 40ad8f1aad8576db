"""The native kernel, compiled once for all tests that need it."""

from __future__ import annotations

import getpass
import os
import tempfile

import pytest

from patterndsl import cache
from patterndsl.backends.cpu_native import build


def use_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it in the cache folder of the test (kept between runs while its sources stay the same)."""
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    here = build.library()
    with monkeypatch.context() as elsewhere:
        folder = os.path.join(tempfile.gettempdir(), f"patterndsl-tests-{getpass.getuser()}")
        elsewhere.setenv(cache.VARIABLE, folder)
        kept = build.library()
        if not kept.exists():
            build.build()
    if not here.exists():
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(kept)
