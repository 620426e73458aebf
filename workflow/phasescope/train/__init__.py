"""Training model organisms: recipes as data, a trainer, and intervention code of its own."""

from phasescope.train.organism import train

__all__ = ["train"]
