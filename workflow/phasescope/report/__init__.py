"""The report: one self-contained page that a reader understands who was never in the terminal."""

from phasescope.report.page import build
from phasescope.report.paper import write_figures

__all__ = ["build", "write_figures"]
