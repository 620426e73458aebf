"""Phasescope: how safety behavior is built into language models, and how well it holds."""

from phasescope import fast_blas

__version__ = "0.1.0"

# Before anything imports mlx.core, which binds its BLAS once, when it is first imported.
fast_blas.load()
