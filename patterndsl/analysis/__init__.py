"""What a spec keeps and what it costs, derived without running it."""

from patterndsl.analysis.closed_form import ClosedForm, QuasiPolynomial
from patterndsl.analysis.figures import analyze
from patterndsl.analysis.report import AtLength, Between, EmptyRows, PerQuery, Report

__all__ = [
    "AtLength",
    "Between",
    "ClosedForm",
    "EmptyRows",
    "PerQuery",
    "QuasiPolynomial",
    "Report",
    "analyze",
]
