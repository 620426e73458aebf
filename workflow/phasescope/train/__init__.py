"""Training model organisms: recipes as data, a trainer, and intervention code of its own."""

from phasescope.train.organism import train
from phasescope.train.over_seeds import over_seeds, sheets_in
from phasescope.train.verdict import held_out

__all__ = ["held_out", "over_seeds", "sheets_in", "train"]
