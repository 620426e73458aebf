"""Survival of edits: what quantization and conversion leave of them, by tensor and in behavior."""

from phasescope.survival.edits import WeightEdit, additions, edited, projection
from phasescope.survival.llama_cpp import LlamaCpp
from phasescope.survival.running import Survival, not_run_row

__all__ = ["LlamaCpp", "Survival", "WeightEdit", "additions", "edited", "not_run_row", "projection"]
