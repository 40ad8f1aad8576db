"""What a unit of work costs on a kind of device: measured, and overridable.

In this order the first that knows the platform and the backend: the file that ``$PATTERNDSL_RATES`` names,
what `pd.calibrate` measured on this machine, and ``rates.json`` beside this file.
"""

from __future__ import annotations

import functools
import importlib.resources
import os
from pathlib import Path
from typing import Any

from patterndsl import cache
from patterndsl.plan.cost import TERMS, Rates

VARIABLE = "PATTERNDSL_RATES"
KIND = "patterndsl rates"
CALIBRATED = "rates.json"


def rates_of(platform: str, backend: str) -> Rates:
    """The rates of a backend on a platform (``cpu``, ``gpu``, ``tpu``); of another platform or backend, that
    of `xla` there, or on the CPU."""
    return _rates_of(platform, backend, os.environ.get(VARIABLE), str(cache.folder()))


def forget_rates() -> None:
    """Files are read anew."""
    _rates_of.cache_clear()


@functools.cache
def _rates_of(platform: str, backend: str, user: str | None, folder: str) -> Rates:
    files = [_user(user), cache.read(CALIBRATED, KIND), _shipped()]
    for wanted in ((platform, backend), (platform, "xla"), ("cpu", "xla")):
        for file in files:
            found = _entry(file, *wanted)
            if found is not None:
                return found
    raise AssertionError("rates.json has none for the CPU")


def _user(path: str | None) -> dict[str, Any] | None:
    if not path:
        return None
    try:
        return cache.checked(Path(path).read_text("utf-8"), KIND, path)
    except (OSError, UnicodeDecodeError) as error:
        cache.ignored(path, f"it cannot be read: {error}")
        return None


def _shipped() -> dict[str, Any] | None:
    file = importlib.resources.files("patterndsl.plan") / "rates.json"
    return cache.checked(file.read_text("utf-8"), KIND, str(file))


def _entry(file: dict[str, Any] | None, platform: str, backend: str) -> Rates | None:
    """The rates that a file has for a backend; None, with a warning, where they are not what they must be."""
    if file is None:
        return None
    try:
        entry = file["devices"][platform][backend]
        given = entry["rates"]
        values = tuple(float(given[name]) for name in TERMS)
        origin = str(entry["origin"])
    except KeyError as error:
        if error.args[0] in (platform, backend):
            return None
        cache.ignored(f"its rates of {backend} on {platform}", f"{error} is missing")
        return None
    except (TypeError, ValueError, AttributeError) as error:
        cache.ignored(f"its rates of {backend} on {platform}", str(error))
        return None
    if not all(0 <= v < 1 for v in values):
        cache.ignored(f"its rates of {backend} on {platform}", "rates are seconds, from 0 to 1")
        return None
    return Rates(values, origin)
