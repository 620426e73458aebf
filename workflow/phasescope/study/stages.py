"""Stages of a cell, the tables that a study makes, and the keys that stages read."""

from phasescope.tables.surveys import SURVEYS

# stages of a cell in run order, and the tables each makes (intervene: one a design)
STAGE_TABLES = {
    "quantize": (),
    "probe": ("probes",),
    "select": ("selection",),
    "intervene": (),
    "cohere": ("coherence", "behavior"),
    "survey": (),  # the tables that the configuration names
    "calibration_sets": ("calibration_sets",),  # where the configuration names sets, at 16 bit
    "survival": ("survival",),  # where the configuration names formats, at 16 bit
}
# joined of those of all cells, and counted of their answers
JOINED_TABLES = (
    "audit",
    "tensors",
    "probes",
    "selection",
    "interventions",
    "coherence",
    "behavior",
    "calibration_sets",
    "survival",
    *SURVEYS,
    "endpoints",
)
COUNTED_TABLES = ("behavior_rates", "behavior_changes", "agreement")
COLLECTED_TABLES = ("cells", "prompt_tables", *JOINED_TABLES, *COUNTED_TABLES)
STUDY_TABLES = (*COLLECTED_TABLES, "across_models", "phases", "claims")
# of a study that trains its organisms first, and so knows the truth
CALIBRATION_TABLES = ("calibration", "calibration_summary", "threshold_fit", "calibration_claims")
# of organisms, whose training is known, where a design asks what that decides
TOPIC_DESIGN, TOPIC_TABLES = "topic-doses", ("topics",)
# where the configuration names a checkpoint for writers
WRITER_TABLES = ("roundtrips", "quantization")
# keys of the configuration that decide which answers a cell gives and how they are kept
ANSWER_KEYS = (
    "thinking",
    "max_thinking_tokens",
    "max_answer_tokens",
    "batch_size",
    "keep_text",
    "seed",
    "judge",
)
# stages on 16-bit weights alone, where the key of their name says so
FROM_16_BIT = ("calibration_sets", "survival")
