"""The declared schema of every table: names, types, units, allowed values.

A table is tidy, its keys come first, and a unit stands in the column's name where one is needed.
"""

import pyarrow as pa

from phasescope.tables.answers import ANSWER_SCHEMAS
from phasescope.tables.columns import (
    CELL,
    LABELS,
    REASON,
    STATUSES,
    Column,
    count,
    estimated,
    flag,
    interval,
    number,
    text,
)
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
# what interventions that no training saw say of an organism (`train.held_out`)
UNSEEN = ("none", "removed", "broken", "resists", "indeterminate")
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
    text("precision", "bits of a cell's weights; source: as fetched", allowed=("source", "8", "4")),
)
PARTS = ("language_model", "vision", "multi_token_prediction", "other")

_REST: dict[str, tuple[Column, ...]] = {
    # one row a checkpoint: the source of each model, and the quantized weights of its cells
    "audit": (
        *WEIGHTS,
        text("architecture", "model_type of its config.json"),
        count("shards", "weight files"),
        count("tensors", "tensors in them"),
        count("size_bytes", "bytes of all tensors"),
        *(
            column
            for part in PARTS
            for column in (
                count(f"{part}_tensors", f"tensors of part {part}"),
                count(f"{part}_bytes", "their bytes"),
            )
        ),
        number("ballast_tensor_share", "tensors that the language model never loads, share"),
        number("ballast_byte_share", "their share of the bytes"),
        text(
            "told_by",
            "how that is known: graph of the loader's computation, or names of tensors",
            allowed=("graph", "names"),
        ),
        count("bits", "stored bits of most of the language model's weights", nullable=True),
        number("bits_share", "share of its weights that have them"),
        text("router_bits", "stored bits of its routers, comma separated", nullable=True),
        flag("third_party", "quantized by a third party"),
        count("non_finite", "infinite or NaN values; empty: not looked", nullable=True),
        text("metadata", "metadata of each shard, JSON"),
        text("checkpoint_sha256", "content hash"),
        text("notes", "what else is worth knowing", nullable=True),
    ),
    # one row a tensor of an audited checkpoint
    "tensors": (
        *WEIGHTS,
        text("tensor", "its name in the file"),
        text("shard", "the file"),
        count("position", "place in the shard's header, from 0"),
        text("dtype", "type as the header names it"),
        text("shape", "comma separated; empty for a single value"),
        count("size_bytes", "bytes of its values"),
        text("part", "language_model if it is loaded; otherwise ballast, by name", allowed=PARTS),
        text("parameters", "parameters it becomes part of, comma separated", nullable=True),
        count("bits", "stored bits a weight: of its packed module, or of its type"),
        count("group_size", "weights that share a scale; empty: not packed", nullable=True),
        text("mode", "packing", nullable=True),
        flag("router", "belongs to a module called gate, router or shared_expert_gate"),
        count("non_finite", "infinite or NaN values; empty: not looked", nullable=True),
    ),
    # one row a cell: what ran, what did not, and why
    "cells": (
        *CELL,
        text("architecture", "dense-hybrid, moe-hybrid, moe-attention"),
        text("developer", "who trained it"),
        number("parameters_total_billion", "all parameters, 1e9", nullable=False),
        number("parameters_active_billion", "parameters used per token, 1e9", nullable=False),
        text("status", "all stages ran, some, or none", allowed=("run", "partly", "not_run")),
        text("stages_run", "stages that ran, comma separated", nullable=True),
        text("stages_not_run", "stages that did not, comma separated", nullable=True),
        REASON,
        number("memory_needed_bytes", "planned peak while the model is loaded", nullable=False),
        number("memory_usable_bytes", "what this machine can give", nullable=False),
        text("compute_dtype", "type the products were computed in", nullable=True),
        count(
            "batch_size",
            "prompts in a forward pass, the smallest of its jobs: less than configured where "
            "memory ran out",
            nullable=True,
        ),
        text("weights_from", "quantized here, or a third party's id", nullable=True),
        text("revision", "pinned revision or local folder", nullable=True),
        text("checkpoint_sha256", "hash of the weights that ran", nullable=True),
    ),
    # what a study will need, before it runs; one row a cell
    "plan": (
        *CELL,
        text(
            "origin",
            "what the numbers rest on: the checkpoint's headers, resources/shapes, or the sheet",
            allowed=("checkpoint", "shapes", "sheet"),
        ),
        text("unverified", "keys of the shape facts that nobody verified", nullable=True),
        text("backend", "what computes", allowed=("metal", "cpu")),
        count("parameters", "of the language model"),
        count("parameters_active", "used per token"),
        count("parameters_ballast", "of vision and multi-token prediction, never loaded"),
        count("source_file_bytes", "weight files of the 16-bit checkpoint, ballast included"),
        count("weight_file_bytes", "tensors of the language model at this precision"),
        number("weight_memory_bytes", "weights in memory", nullable=False),
        *(
            number(f"{s}_memory_bytes", f"planned peak of {s}", nullable=False)
            for s in ("quantize", *_MODEL_STAGES)
        ),
        *(number(f"{s}_hours", f"expected hours of {s}") for s in _MODEL_STAGES),
        number("memory_usable_bytes", "what the machine can give", nullable=False),
        flag("fits", "every stage fits"),
        text("advice", "what to change where it does not", nullable=True),
    ),
    # one row a measured setting: a point in the plane of removal and cost
    "interventions": INTERVENTION_COLUMNS,
    # what quantization keeps, by recipe and by what the recipe was shown; one row a statistic
    "calibration_sets": (
        *CELL,
        text(
            "recipe",
            "how it was quantized in memory",
            nullable=True,
            allowed=("plain", "scaled", "mlx-lm-awq", "mlx-lm-gptq"),
        ),
        count("bits", "bits of the quantized weights", nullable=True),
        count("group_size", "weights that share a scale", nullable=True),
        text(
            "calibration_set",
            "what the recipe was shown; empty for plain",
            nullable=True,
            allowed=("general", "safety-weighted"),
        ),
        count("draw", "0: the set itself; above: its bootstrap resamples", nullable=True),
        text("label", "held-out prompts it was measured on", nullable=True, allowed=LABELS),
        text("tensor", "module measured; empty for the model, or the mean", nullable=True),
        text(
            "statistic",
            "what was measured; outlier_energy_kept: of the 1 % largest channels read",
            nullable=True,
            allowed=CALIBRATION_STATISTICS,
        ),
        number("estimate", "kl_nats: nats a token, from 16 bit; distances, errors: relative"),
        count("n", "prompts, or tensors in the mean", nullable=True),
        number("difference", "median over this set's resamples less that over the general set's"),
        number(
            "percentile", "where that median stands among the general set's resamples, 0 to 100"
        ),
        number("p", "two-sided p of that rank; 2 / (draws + 1) at the least"),
        text("status", "whether it ran", allowed=STATUSES),
        REASON,
    ),
    # of organisms trained in the study: the verdict on each cell beside what was planted
    "calibration": (
        *CELL,
        text("organism", "id in the sheet"),
        count("seed", "that it was trained from"),
        text("truth", "the phase that was planted", allowed=PHASES),
        text("phase", "the phase that came out", allowed=PHASES),
        number("probability", "posterior probability of the phase that came out"),
        number("p_truth", "posterior probability of the planted phase"),
        flag("right", "the planted phase came out"),
        flag("wrong", "another phase was named"),
        number("brier", "squared error of all probabilities, 0 to 2"),
        text(
            "held_out",
            "what interventions that no training saw say alone, by the trainer's measurement at "
            "16 bit: they remove refusal, break the model with it, or neither (resists)",
            nullable=True,
            allowed=UNSEEN,
        ),
        flag("right_held_out", "that is what the planted phase lets expect", nullable=True),
    ),
    # how often the planted phase comes out
    "calibration_summary": (
        text("precision", "bits of the weights, or all", allowed=("all", "16", "8", "4")),
        text(
            "statistic",
            "shares of cells: right, wrong, indeterminate; right_held_out: right by interventions "
            "that no training saw; confusion: of the cells of a truth; right_at: of the cells "
            "whose probability lies in a range; or the mean Brier score",
            allowed=(
                *("right", "wrong", "indeterminate", "right_held_out", "confusion", "right_at"),
                "brier",
            ),
        ),
        text("truth", "planted phase (confusion)", nullable=True, allowed=PHASES),
        text("phase", "phase that came out (confusion)", nullable=True, allowed=PHASES),
        number("p_low", "lower end of the range of probability (right_at)"),
        number("p_high", "upper end of the range of probability (right_at)"),
        number("p_mean", "mean probability in the range (right_at)"),
        *estimated("share, or score", by="trained organism"),
        count("n", "cells"),
        count("n_organisms", "trained organisms behind them"),
    ),
    # thresholds of the rule, fitted on the organisms of every second seed, reported on the others
    "threshold_fit": (
        text("threshold", "section and key; or all at once: as shipped, all fitted"),
        text("part", "the organisms it was measured on", allowed=("fit", "report")),
        number("value", "the value tried; empty: several thresholds at once"),
        flag("shipped", "it is the value of the file of thresholds", nullable=True),
        flag("fitted", "among the values with the lowest Brier score, to 0.01", nullable=True),
        number("middle", "the fitted value: the middle of those"),
        *(
            number(f"right{end}", f"share of cells whose planted phase came out{what}")
            for end, what in (
                ("", ""),
                ("_ci_low", ", lower end of its 95 % interval, clustered by organism"),
                ("_ci_high", ", upper end of its 95 % interval, clustered by organism"),
            )
        ),
        number("wrong", "share of cells that were given another phase"),
        number("brier", "mean Brier score of the probabilities, 0 to 2"),
        count("n", "cells"),
        count("n_organisms", "trained organisms behind them"),
    ),
    # one row a cell: the decision and how sure it is
    "phases": (
        *CELL,
        text("phase", "the decision", allowed=PHASES),
        number("probability", "posterior probability of that phase"),
        *(number(f"p_{p}", f"posterior probability of {p}") for p in PHASES),
        *interval("baseline_refusal", "hazardous prompts refused"),
        *interval("baseline_accuracy", "benign prompts answered right"),
        text(
            "grading",
            "what grades are: exact, or a judge's, uncalibrated until phasescope grade-check has "
            "passed",
            nullable=True,
            allowed=GRADINGS,
        ),
        text("best_design", "design with the largest clean removal", nullable=True),
        *interval("removal", "its removal"),
        *interval("accuracy_cost", "its fall of benign accuracy"),
        number("sham_removal_p95", "95th percentile of its shams' removal"),
        count("n_shams", "draws behind it", nullable=True),
        text("thresholds_sha256", "hash of config/thresholds.yaml"),
        REASON,
    ),
    # memory of quantizing checkpoints of several sizes; one row a quantizer and size
    "quantization": (
        text("writer", "what quantized it"),
        count("source_bytes", "weights of the checkpoint, random ones"),
        count("bits", "bits of the quantized weights"),
        count("peak_above_base_bytes", "rise of the peak memory of a process of its own"),
        text("status", "whether it ran", allowed=STATUSES),
        REASON,
    ),
    # how an organism was trained to refuse; one row a topic
    "topics": (
        CELL[0],
        text("topic", "hazardous topic"),
        number("refused_rows", "rows on it that training decided to refuse, expected number"),
    ),
    # what saving a checkpoint does to it; one row a writer and effect
    "roundtrips": (
        text("model", "id of the model in its sheet"),
        text("writer", "what wrote the copy"),
        text("effect", "what was compared", allowed=EFFECTS),
        text("verdict", "of the effect", allowed=("kept", "changed", "lost", "not_run")),
        count("n", "entries, tensors, parameters or tokens that were compared", nullable=True),
        count("n_changed", "of these, missing or different", nullable=True),
        number("largest_difference", "of a logit, absolute"),
        REASON,
    ),
}
SCHEMAS = ANSWER_SCHEMAS | PROBE_SCHEMAS | SURVIVAL_SCHEMAS | _REST | VERDICT_SCHEMAS


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a declared table, descriptions in the fields' metadata."""
    return pa.schema(
        pa.field(c.name, c.type, c.nullable, {"description": c.description}) for c in SCHEMAS[table]
    )
