"""The report: one self-contained page that a reader understands who was never in the terminal."""

from phasescope.report.page import build

__all__ = ["build"]
