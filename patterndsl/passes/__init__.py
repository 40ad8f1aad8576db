"""Rewrites of the IR, one file each; `pipeline` lists them."""

from patterndsl.passes.base import Pass
from patterndsl.passes.pipeline import DEFAULT, PASSES, optimize, run

__all__ = ["DEFAULT", "PASSES", "Pass", "optimize", "run"]
