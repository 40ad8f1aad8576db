"""Files that outlive a process: what was measured on this machine, in the user's cache folder.

Nothing here is needed: what is missing, damaged or from elsewhere is ignored with a warning, and what cannot
be written is an error of the call that was asked to write it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

VARIABLE = "PATTERNDSL_CACHE"


def folder() -> Path:
    """Where files are kept: ``$PATTERNDSL_CACHE``, or ``patterndsl`` in the user's cache folder."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "patterndsl"


def read(name: str, kind: str) -> dict[str, Any] | None:
    """The object that `write` stored under this name with this ``kind``; None where there is none. A file
    that is something else is ignored with a warning."""
    try:
        path = folder() / name
        text = path.read_text("utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            ignored(str(folder() / name), "it is not text")
        return None  # RuntimeError: there is no home folder
    return checked(text, kind, str(path))


def checked(text: str, kind: str, path: str) -> dict[str, Any] | None:
    """The object in a file's text, if it is of this ``kind``; else None, with a warning."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        ignored(path, "it is not JSON")
        return None
    if not isinstance(found, dict) or found.get("kind") != kind:
        ignored(path, f"it does not say that it holds {kind}")
        return None
    return found


def ignored(path: str, why: str) -> None:
    """Warn that a file, or something in it, is ignored."""
    warnings.warn(f"patterndsl ignores {path}: {why}; mend or delete it", RuntimeWarning, stacklevel=4)


def write(name: str, kind: str, data: dict[str, Any]) -> Path:
    """Store an object, all at once: a reader sees the old file or the new one. Raises OSError."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"kind": kind, **data}, file, indent=2, sort_keys=True)
            file.write("\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
