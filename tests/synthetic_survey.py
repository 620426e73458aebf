"""Synthetic tables of the survey and of survival, for tests of the report."""

from itertools import product

import numpy as np

from phasescope.stats import wilson

N, EXPERTS, STEPS = 32, 16, 9
FORMATS = [(8, 32), (8, 64), (4, 32), (4, 64)]
EDITS = [("weight_projection", 1.0), ("weight_addition", 0.01), ("weight_addition", 0.5)]
TOO_NARROW = "no weight has a multiple of 128 in a row"
NO_EXPERTS = "the model has no experts, so it routes nothing"


def _ran(statistic, estimate, half=0.05, n=N, **where):
    ends = {"ci_low": estimate - half, "ci_high": estimate + half}
    return where | {"statistic": statistic, "estimate": estimate, **ends, "n": n, "status": "run"}


def _not_run(reason, **where):
    return where | {"n": 0, "status": "not_run", "reason": reason}


def routing(rng, layers, moment="last_prompt"):
    """Rates of 16 experts a layer; expert 3 of the middle layer leads by 0.8."""
    rows = []
    for layer, expert in product(range(layers), range(EXPERTS)):
        where = {"layer": layer, "expert": expert}
        leads = (layer, expert) == (layers // 2, 3)
        benign = 0.1 if leads else float(rng.uniform(0.05, 0.2))
        difference = 0.8 if leads else float(rng.normal(0, 0.02))
        for text, rate in (("hazardous", benign + difference), ("benign", benign)):
            rows.append(_ran("selection_rate", rate, text=text, **where))
        for span, share in (("prompt", 1.0), (moment, -0.9)):
            found = difference * share
            rows.append(_ran("rate_difference", found, n=2 * N, span=span, **where))
    return rows


def trajectories(rng, layers, experts):
    """Hazardous answers stay at 1, benign ones at 0, forced ones come back at token 4."""
    rows = []
    statistics = ["projection", *["safety_expert_rate"] * experts]
    levels = {"hazardous": lambda s: 1.0, "benign": lambda s: 0.0, "forced": lambda s: float(s > 3)}
    for statistic, layer, condition in product(statistics, range(layers), levels):
        where = {"condition": condition, "layer": layer, "layer_kind": "attention"}
        for step in range(-1, STEPS - 1):
            level = levels[condition](step) + rng.normal(0, 0.01)
            rows.append(_ran(statistic, level, step=step, **where))
    share, low, high = wilson(24, N)
    rows.append(
        {"condition": "forced", "statistic": "refusal_returns", "estimate": share, "ci_low": low}
        | {"ci_high": high, "n": N, "status": "run"}
    )
    if not experts:
        return [*rows, _not_run(NO_EXPERTS, statistic="safety_expert_rate")]
    return [*rows, _ran("change_point", 4.0, 1.0, condition="forced")]


def survival(rng, layers):
    """Edits of two tensors a layer, or of one; an addition of 0.01 gaps is lost at 4 bit."""
    rows = []
    for (edit, dose), (bits, group) in product(EDITS, FORMATS):
        keys = {"edit": edit, "dose": dose, "format": "mlx", "recipe": "plain"}
        keys |= {"bits": bits, "group_size": group}
        lost = bits == 4 and dose == 0.01
        tensors = [f"layers.{i}.out_proj" for i in range(layers if "proj" in edit else 1)]
        for statistic, level in (("kept", 0.1 if lost else 0.99), ("returned", 0.4 * lost + 0.01)):
            found = level + rng.normal(0, 0.01, len(tensors))
            control = {"control_median": 0.01, "control_p95": 0.03, "control_draws": 20}
            common = keys | control | {"statistic": statistic, "status": "run"}
            for tensor, value in zip(tensors, found, strict=True):
                rows.append(common | {"tensor": tensor, "estimate": float(value)})
            rows.append(common | {"estimate": float(np.mean(found)), "n": len(tensors)})
        rows.append(keys | _ran("removal", 0.0 if lost else 0.6, 0.1))
        none = dose == 0.5  # it made no prompt comply at 16 bit
        rows.append(
            keys | _ran("removal_kept", float("nan") if none else 0.9, 0.08, N * (not none))
        )
    whole = {"format": "bfloat16", "edit": "weight_projection", "dose": 1.0}
    rows.append(whole | _ran("removal", 0.6, 0.1))
    narrow = {"format": "mlx", "recipe": "plain", "bits": 4, "group_size": 128}
    return [*rows, narrow | {"status": "not_run", "reason": TOO_NARROW}]
