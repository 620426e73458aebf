"""Models, precisions and cells: what a study consists of, and which of it fits the machine."""

from phasescope.matrix.disk import ModelDisk, missing_bytes, peak_bytes, shortage
from phasescope.matrix.effort import EFFORT, dropped_designs
from phasescope.matrix.machine import Machine, free_disk, on_metal, other_machine, this_machine
from phasescope.matrix.memory import SWEEP_VALUES
from phasescope.matrix.plan import LEFT_OUT_BY_SHEET, Cell, plan
from phasescope.matrix.sheet import OPTIONAL_STAGES, Model, from_seeds, pick, read_sheet
from phasescope.matrix.sources import Source, from_headers, from_shapes
from phasescope.matrix.validation import validated_config
from phasescope.matrix.workload import Prompts, prompt_lengths

__all__ = [
    "EFFORT",
    "LEFT_OUT_BY_SHEET",
    "OPTIONAL_STAGES",
    "SWEEP_VALUES",
    "Cell",
    "Machine",
    "Model",
    "ModelDisk",
    "Prompts",
    "Source",
    "dropped_designs",
    "free_disk",
    "from_headers",
    "from_seeds",
    "from_shapes",
    "missing_bytes",
    "on_metal",
    "other_machine",
    "peak_bytes",
    "pick",
    "plan",
    "prompt_lengths",
    "read_sheet",
    "shortage",
    "this_machine",
    "validated_config",
]
