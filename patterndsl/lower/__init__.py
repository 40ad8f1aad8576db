"""Syntax tree to IR: names resolved, arguments bound, kinds checked, imports read.

``files`` reads the imports and collects what each file defines; ``patterns``, ``calls``, ``cases`` and
``numbers`` lower expressions; ``module`` puts the `Module` together. Errors are collected, not raised at
the first: whatever is wrong lowers to None, which its users pass on without a second error.
"""

from patterndsl.lower.module import lower

__all__ = ["lower"]
