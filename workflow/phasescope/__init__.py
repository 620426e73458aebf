"""Phasescope: how safety behavior is built into language models, and how well it holds."""

__version__ = "0.1.0"
