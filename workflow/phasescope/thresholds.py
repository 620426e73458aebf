"""The one file of thresholds."""

from math import isfinite
from pathlib import Path

from phasescope.errors import PhasescopeError, shown
from phasescope.tables.reading import read_yaml

_KEYS = {
    "selection": {
        "max_layer_share",
        "max_benign_kl_nats",
        "min_induced_refusal_nats",
        "min_score_auroc",
        "min_readable_auroc",
    },
    "clean": {"max_accuracy_cost"},
    "grading": {"min_labeled", "min_sensitivity", "min_specificity", "max_missing"},
    "across_models": {"max_equal_range", "max_size_correlation"},
    "phases": {
        "min_baseline_refusal",
        "min_baseline_accuracy",
        "min_full",
        "max_broken_refusal",
        "min_broken_cost",
        "max_broken_finished",
        "max_robust_full",
        "max_ladder_full",
        "min_probability",
        "sham_percentile",
    },
    "claims": {
        "min_right",
        "min_hazardous",
        "min_shams",
        "min_models",
        "min_topics",
        "min_samples",
        "min_reliability",
        "min_removal",
        "max_part_removal",
        "max_small_cost",
        "min_removal_difference",
        "min_thinking_loss",
        "min_knowledge_loss",
        "min_suppression",
        "min_loops",
        "min_regret",
        "min_reasoned_refusal",
        "max_few_experts",
        "max_small_dose",
        "min_gap_rise",
        "min_overcount",
        "min_family_difference",
        "min_path_difference",
        "min_detected",
        "min_keyword_excess",
        "min_holdouts",
        "min_yielding",
        "max_temperature_change",
        "min_mass_excess",
        "min_topic_correlation",
        "min_gap_slope",
        "min_gap_ratio",
        "min_monotone",
        "max_neighbor_cosine",
        "min_channel_auroc",
        "min_flipped",
        "max_late_flipped",
        "min_redetection",
        "max_redetection",
        "min_returns",
        "min_dose_ratio",
        "min_hollow_rise",
        "max_transfer_loss",
        "max_agreement",
        "min_divergence_change",
        "min_refusal_change",
        "min_calibration_effect",
        "min_precision_loss",
        "min_kept",
        "max_survival",
        "min_vision_share",
        "min_changed",
        "max_memory_slope",
        "max_perplexity_change",
        "max_moderate_change",
        "max_pruning_loss",
        "min_dead_share",
        "min_selection_rise",
        "min_bic_difference",
        "min_share_difference",
        "min_phase_difference",
    },
}


def _keys(found) -> str:
    return shown(", ".join(map(str, found))) if isinstance(found, dict) else shown(found)


def read_thresholds(path: str | Path) -> dict:
    """Read and check the thresholds; PhasescopeError names file and key of a fault."""
    found = read_yaml(path, "file of thresholds")
    if not isinstance(found, dict) or set(found) != {"version", *_KEYS}:
        raise PhasescopeError(
            f"{path}: keys: found {_keys(found)}; allowed, all of: version, {', '.join(_KEYS)}"
        )
    for section, keys in _KEYS.items():
        values = found[section]
        if not isinstance(values, dict) or set(values) != keys:
            raise PhasescopeError(
                f"{path}: key {section!r}: found {_keys(values)}; "
                f"allowed, all of: {', '.join(sorted(keys))}"
            )
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise PhasescopeError(
                    f"{path}: key '{section}.{key}': found {shown(value)}; allowed: a finite number"
                )
    return found
