"""The schema of what is left of edits after quantization and conversion."""

from phasescope.tables.columns import (
    CELL,
    GRADES,
    LABELS,
    REASON,
    STATUSES,
    Column,
    count,
    number,
    text,
)

TENSOR_STATISTICS = ("returned", "kept", "steps")
BEHAVIOR_STATISTICS = (
    "grade_share",
    "same_grade",
    "removal",
    "removal_kept",
    "hollow_change",
)

SURVIVAL_SCHEMAS: dict[str, tuple[Column, ...]] = {
    # edits made at 16 bit, followed through formats; one row a format, edit and statistic
    "survival": (
        *CELL,
        text(
            "edit",
            "made at 16 bit: the selected direction projected out of all writers below the top "
            "layer, or subtracted at its layer in the mixer's output weights; empty: unedited",
            nullable=True,
            allowed=("weight_projection", "weight_addition"),
        ),
        number("dose", "of an addition: mean gaps between hazardous and benign prompts"),
        text(
            "format",
            "what it went through; bfloat16: nothing further",
            allowed=("bfloat16", "mlx", "gguf"),
        ),
        text(
            "recipe",
            "mlx: how it was quantized; gguf: the type that was asked for",
            nullable=True,
            allowed=("plain", "scaled", "mlx-lm-awq", "mlx-lm-gptq", "F16", "Q8_0", "Q4_K"),
        ),
        count("bits", "mlx: bits of the quantized weights", nullable=True),
        count("group_size", "mlx: weights that share a scale", nullable=True),
        text("calibration_set", "what the recipe was shown", nullable=True, allowed=("general",)),
        text(
            "export",
            "gguf: how the checkpoint for the converter was written; as_published: names and "
            "layout of the source; mlx_lm: by mlx_lm.save",
            nullable=True,
            allowed=("as_published", "mlx_lm"),
        ),
        text("stored_as", "gguf: type that llama.cpp gave the tensor", nullable=True),
        text("tensor", "module measured; empty: the mean, or the model's behavior", nullable=True),
        text("label", "evaluate prompts it was measured on", nullable=True, allowed=LABELS),
        text("grade", "of grade_share", nullable=True, allowed=GRADES),
        text(
            "statistic",
            "of tensors: returned (share of the edited directions' norm that comes back), kept "
            "(share of the edit that is left), steps (size of the edit in quantization steps); of "
            "answers: grade_share, same_grade (as at 16 bit), removal (of prompts refused at 16 "
            "bit without the edit: comply), removal_kept (of those that the edit had brought to "
            "comply at 16 bit: still do), hollow_change (among prompts refused by neither, against "
            "the edit at 16 bit)",
            nullable=True,
            allowed=(*TENSOR_STATISTICS, *BEHAVIOR_STATISTICS),
        ),
        number("estimate", "the statistic"),
        number("ci_low", "lower end of the 95 % interval, of answers"),
        number("ci_high", "upper end of the 95 % interval, of answers"),
        number("control_median", "the same along random directions of the same tensors, median"),
        number("control_p95", "the same along random directions, 95th percentile"),
        count("control_draws", "random directions (sets of them) drawn", nullable=True),
        count("n", "prompts, or tensors in the mean", nullable=True),
        number("p", "hollow_change: two-sided p of McNemar's exact test"),
        text("status", "whether it ran", allowed=STATUSES),
        REASON,
    ),
}
