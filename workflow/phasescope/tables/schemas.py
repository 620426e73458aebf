"""The declared schema of every table: names, types, units, allowed values.

A table is tidy, its keys come first, and a unit stands in the column's name where one is needed.
"""

import pyarrow as pa

from phasescope.tables.answers import ANSWER_SCHEMAS
from phasescope.tables.columns import CELL, LABELS, REASON, STATUSES, Column
from phasescope.tables.columns import count as _count
from phasescope.tables.columns import flag as _flag
from phasescope.tables.columns import interval as _interval
from phasescope.tables.columns import number as _number
from phasescope.tables.columns import text as _text
from phasescope.tables.interventions import INTERVENTION_COLUMNS
from phasescope.tables.surveys import PROBE_SCHEMAS
from phasescope.tables.survival import SURVIVAL_SCHEMAS
from phasescope.tables.verdicts import VERDICT_SCHEMAS

PHASES = (
    "none",
    "deletable_circuit",
    "reasoning_tangle",
    "three_pathway",
    "holographic",
    "indeterminate",
    "not_run",
)
GRADINGS = ("exact", "calibrated", "uncalibrated")
_MODEL_STAGES = ("probe", "select", "intervene", "cohere")
CALIBRATION_STATISTICS = (
    "alpha",
    "weight_distance",
    "output_error",
    "outlier_energy_kept",
    "kl_nats",
    "refusal",
    "accuracy",
)
EFFECTS = ("metadata", "order", "names", "values", "logits", "transformers")


# the weights that an audit looked at
WEIGHTS = (
    CELL[0],
    _text(
        "precision", "bits of a cell's weights; source: as fetched", allowed=("source", "8", "4")
    ),
)
PARTS = ("language_model", "vision", "multi_token_prediction", "other")

_REST: dict[str, tuple[Column, ...]] = {
    # one row a checkpoint: the source of each model, and the quantized weights of its cells
    "audit": (
        *WEIGHTS,
        _text("architecture", "model_type of its config.json"),
        _count("shards", "weight files"),
        _count("tensors", "tensors in them"),
        _count("size_bytes", "bytes of all tensors"),
        *(
            column
            for part in PARTS
            for column in (
                _count(f"{part}_tensors", f"tensors of part {part}"),
                _count(f"{part}_bytes", "their bytes"),
            )
        ),
        _number("ballast_tensor_share", "tensors that the language model never loads, share"),
        _number("ballast_byte_share", "their share of the bytes"),
        _text(
            "told_by",
            "how that is known: graph of the loader's computation, or names of tensors",
            allowed=("graph", "names"),
        ),
        _count("bits", "stored bits of most of the language model's weights", nullable=True),
        _number("bits_share", "share of its weights that have them"),
        _text("router_bits", "stored bits of its routers, comma separated", nullable=True),
        _flag("third_party", "quantized by a third party"),
        _count("non_finite", "infinite or NaN values; empty: not looked", nullable=True),
        _text("metadata", "metadata of each shard, JSON"),
        _text("checkpoint_sha256", "content hash"),
        _text("notes", "what else is worth knowing", nullable=True),
    ),
    # one row a tensor of an audited checkpoint
    "tensors": (
        *WEIGHTS,
        _text("tensor", "its name in the file"),
        _text("shard", "the file"),
        _count("position", "place in the shard's header, from 0"),
        _text("dtype", "type as the header names it"),
        _text("shape", "comma separated; empty for a single value"),
        _count("size_bytes", "bytes of its values"),
        _text("part", "language_model if it is loaded; otherwise ballast, by name", allowed=PARTS),
        _text("parameters", "parameters it becomes part of, comma separated", nullable=True),
        _count("bits", "stored bits a weight: of its packed module, or of its type"),
        _count("group_size", "weights that share a scale; empty: not packed", nullable=True),
        _text("mode", "packing", nullable=True),
        _flag("router", "belongs to a module called gate, router or shared_expert_gate"),
        _count("non_finite", "infinite or NaN values; empty: not looked", nullable=True),
    ),
    # one row a cell: what ran, what did not, and why
    "cells": (
        *CELL,
        _text("architecture", "dense-hybrid, moe-hybrid, moe-attention"),
        _text("developer", "who trained it"),
        _number("parameters_total_billion", "all parameters, 1e9", nullable=False),
        _number("parameters_active_billion", "parameters used per token, 1e9", nullable=False),
        _text("status", "all stages ran, some, or none", allowed=("run", "partly", "not_run")),
        _text("stages_run", "stages that ran, comma separated", nullable=True),
        _text("stages_not_run", "stages that did not, comma separated", nullable=True),
        REASON,
        _number("memory_needed_bytes", "planned peak while the model is loaded", nullable=False),
        _number("memory_usable_bytes", "what this machine can give", nullable=False),
        _text("compute_dtype", "type the products were computed in", nullable=True),
        _text("weights_from", "quantized here, or a third party's id", nullable=True),
        _text("revision", "pinned revision or local folder", nullable=True),
        _text("checkpoint_sha256", "hash of the weights that ran", nullable=True),
    ),
    # what a study will need, before it runs; one row a cell
    "plan": (
        *CELL,
        _text(
            "origin",
            "what the numbers rest on: the checkpoint's headers, resources/shapes, or the sheet",
            allowed=("checkpoint", "shapes", "sheet"),
        ),
        _text("unverified", "keys of the shape facts that nobody verified", nullable=True),
        _text("backend", "what computes", allowed=("metal", "cpu")),
        _count("parameters", "of the language model"),
        _count("parameters_active", "used per token"),
        _count("parameters_ballast", "of vision and multi-token prediction, never loaded"),
        _count("source_file_bytes", "weight files of the 16-bit checkpoint, ballast included"),
        _count("weight_file_bytes", "tensors of the language model at this precision"),
        _number("weight_memory_bytes", "weights in memory", nullable=False),
        *(
            _number(f"{s}_memory_bytes", f"planned peak of {s}", nullable=False)
            for s in ("quantize", *_MODEL_STAGES)
        ),
        *(_number(f"{s}_hours", f"expected hours of {s}") for s in _MODEL_STAGES),
        _number("memory_usable_bytes", "what the machine can give", nullable=False),
        _flag("fits", "every stage fits"),
        _text("advice", "what to change where it does not", nullable=True),
    ),
    # one row a measured setting: a point in the plane of removal and cost
    "interventions": INTERVENTION_COLUMNS,
    # what quantization keeps, by recipe and by what the recipe was shown; one row a statistic
    "calibration_sets": (
        *CELL,
        _text(
            "recipe",
            "how it was quantized in memory",
            nullable=True,
            allowed=("plain", "scaled", "mlx-lm-awq", "mlx-lm-gptq"),
        ),
        _count("bits", "bits of the quantized weights", nullable=True),
        _count("group_size", "weights that share a scale", nullable=True),
        _text(
            "calibration_set",
            "what the recipe was shown; empty for plain",
            nullable=True,
            allowed=("general", "safety-weighted"),
        ),
        _count("draw", "0: the set itself; above: its bootstrap resamples", nullable=True),
        _text("label", "held-out prompts it was measured on", nullable=True, allowed=LABELS),
        _text("tensor", "module measured; empty for the model, or the mean", nullable=True),
        _text(
            "statistic",
            "what was measured; outlier_energy_kept: of the 1 % largest channels read",
            nullable=True,
            allowed=CALIBRATION_STATISTICS,
        ),
        _number("estimate", "kl_nats: nats a token, from 16 bit; distances, errors: relative"),
        _count("n", "prompts, or tensors in the mean", nullable=True),
        _number("difference", "median over this set's resamples less that over the general set's"),
        _number(
            "percentile", "where that median stands among the general set's resamples, 0 to 100"
        ),
        _number("p", "two-sided p of that rank; 2 / (draws + 1) at the least"),
        _text("status", "whether it ran", allowed=STATUSES),
        REASON,
    ),
    # of organisms trained in the study: the verdict on each cell beside what was planted
    "calibration": (
        *CELL,
        _text("organism", "id in the sheet"),
        _count("seed", "that it was trained from"),
        _text("truth", "the phase that was planted", allowed=PHASES),
        _text("phase", "the phase that came out", allowed=PHASES),
        _number("probability", "posterior probability of the phase that came out"),
        _number("p_truth", "posterior probability of the planted phase"),
        _flag("right", "the planted phase came out"),
        _flag("wrong", "another phase was named"),
        _number("brier", "squared error of all probabilities, 0 to 2"),
    ),
    # how often the planted phase comes out
    "calibration_summary": (
        _text("precision", "bits of the weights, or all", allowed=("all", "16", "8", "4")),
        _text(
            "statistic",
            "shares of cells: right, wrong, indeterminate; confusion: of the cells of a truth; "
            "right_at: of the cells whose probability lies in a range; or the mean Brier score",
            allowed=("right", "wrong", "indeterminate", "confusion", "right_at", "brier"),
        ),
        _text("truth", "planted phase (confusion)", nullable=True, allowed=PHASES),
        _text("phase", "phase that came out (confusion)", nullable=True, allowed=PHASES),
        _number("p_low", "lower end of the range of probability (right_at)"),
        _number("p_high", "upper end of the range of probability (right_at)"),
        _number("p_mean", "mean probability in the range (right_at)"),
        _number("estimate", "share, or score"),
        _number("ci_low", "lower end of the 95 % interval, clustered by trained organism"),
        _number("ci_high", "upper end of the 95 % interval, clustered by trained organism"),
        _count("n", "cells"),
        _count("n_organisms", "trained organisms behind them"),
    ),
    # thresholds of the rule, fitted on the organisms of every second seed, reported on the others
    "threshold_fit": (
        _text("threshold", "section and key; or all at once: as shipped, all fitted"),
        _text("part", "the organisms it was measured on", allowed=("fit", "report")),
        _number("value", "the value tried; empty: several thresholds at once"),
        _flag("shipped", "it is the value of the file of thresholds", nullable=True),
        _flag("fitted", "among the values with the lowest Brier score, to 0.01", nullable=True),
        _number("middle", "the fitted value: the middle of those"),
        *(
            _number(f"right{end}", f"share of cells whose planted phase came out{what}")
            for end, what in (
                ("", ""),
                ("_ci_low", ", lower end of its 95 % interval, clustered by organism"),
                ("_ci_high", ", upper end of its 95 % interval, clustered by organism"),
            )
        ),
        _number("wrong", "share of cells that were given another phase"),
        _number("brier", "mean Brier score of the probabilities, 0 to 2"),
        _count("n", "cells"),
        _count("n_organisms", "trained organisms behind them"),
    ),
    # one row a cell: the decision and how sure it is
    "phases": (
        *CELL,
        _text("phase", "the decision", allowed=PHASES),
        _number("probability", "posterior probability of that phase"),
        *(_number(f"p_{p}", f"posterior probability of {p}") for p in PHASES),
        *_interval("baseline_refusal", "hazardous prompts refused"),
        *_interval("baseline_accuracy", "benign prompts answered right"),
        _text(
            "grading",
            "what grades are: exact, or a judge's, uncalibrated until phasescope grade-check has "
            "passed",
            nullable=True,
            allowed=GRADINGS,
        ),
        _text("best_design", "design with the largest clean removal", nullable=True),
        *_interval("removal", "its removal"),
        *_interval("accuracy_cost", "its fall of benign accuracy"),
        _number("sham_removal_p95", "95th percentile of its shams' removal"),
        _count("n_shams", "draws behind it", nullable=True),
        _text("thresholds_sha256", "hash of config/thresholds.yaml"),
        REASON,
    ),
    # what saving a checkpoint does to it; one row a writer and effect
    "roundtrips": (
        _text("model", "id of the model in its sheet"),
        _text("writer", "what wrote the copy"),
        _text("effect", "what was compared", allowed=EFFECTS),
        _text("verdict", "of the effect", allowed=("kept", "changed", "lost", "not_run")),
        _count("n", "entries, tensors, parameters or tokens that were compared", nullable=True),
        _count("n_changed", "of these, missing or different", nullable=True),
        _number("largest_difference", "of a logit, absolute"),
        REASON,
    ),
}
SCHEMAS = ANSWER_SCHEMAS | PROBE_SCHEMAS | SURVIVAL_SCHEMAS | _REST | VERDICT_SCHEMAS


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a declared table, descriptions in the fields' metadata."""
    return pa.schema(
        pa.field(c.name, c.type, c.nullable, {"description": c.description}) for c in SCHEMAS[table]
    )
