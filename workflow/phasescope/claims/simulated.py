"""Controls of claims that compare models: tables simulated from a stated process.

Each function gives the tables of a study that its claim reads; `positive`: the claim holds of the
process, otherwise it does not; seed: of all draws.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from phasescope.stats import clustered_wilson, wilson
from phasescope.tables import frame_of

Tables = dict[str, pd.DataFrame]
N = 100  # hazardous prompts a model


def _cells(sizes, architectures, developers=None) -> pd.DataFrame:
    rows = [
        {
            "model": f"model-{i:02}",
            "precision": "16",
            "architecture": architecture,
            "developer": f"developer-{i % 5}" if developers is None else developers[i],
            "parameters_total_billion": float(size),
            "parameters_active_billion": float(size),
            "status": "run",
            "memory_needed_bytes": 1.0,
            "memory_usable_bytes": 1.0,
        }
        for i, (size, architecture) in enumerate(zip(sizes, architectures, strict=True))
    ]
    return frame_of("cells", rows)


def _rates(cells: pd.DataFrame, rates: np.ndarray, n: int, rng) -> Tables:
    """Strict rates of models on n prompts each."""
    rows = []
    for model, rate in zip(cells["model"], rates, strict=True):
        hit = rng.random(n) < rate
        value, low, high = clustered_wilson(hit, np.arange(n))
        rows.append(
            {
                "model": model,
                "precision": "16",
                "prompt_table": "main",
                "condition": "baseline",
                "thinking": "off",
                "temperature": 0.0,
                "grader": "exact",
                "by": "all",
                "value": "all",
                "statistic": "strict_asr",
                "hits": int(hit.sum()),
                "n": n,
                "n_missing": 0,
                "n_sources": n,
                "estimate": value,
                "ci_low": low,
                "ci_high": high,
            }
        )
    return {"cells": cells, "behavior_rates": frame_of("behavior_rates", rows)}


def size_and_rate(positive: bool, seed: int) -> Tables:
    """ff-4: 240 models of 1 to 1000 billion parameters, rates drawn from 0.2 to 0.6 whatever the
    size; or rising with log10 of it from 0.1 to 0.8."""
    rng, sizes = np.random.default_rng(seed), np.logspace(0, 3, 240)
    rates = rng.uniform(0.2, 0.6, 240) if positive else np.linspace(0.1, 0.8, 240)
    cells = _cells(sizes, ["dense-hybrid"] * 240)
    return _rates(cells, rng.permutation(rates) if positive else rates, N, rng)


def two_of_a_size(positive: bool, seed: int) -> Tables:
    """ff-5: two models of 671 and 675 billion parameters by two developers, 400 prompts each: true
    rates 0.2 and 0.7, or both 0.4."""
    rng = np.random.default_rng(seed)
    cells = _cells((671, 675), ["moe-attention"] * 2, ["one", "another"])
    return _rates(cells, np.array([0.2, 0.7] if positive else [0.4, 0.4]), 400, rng)


def _interventions(cells: pd.DataFrame, designs: dict[str, np.ndarray], rng) -> pd.DataFrame:
    """A baseline that refuses everything, and the chosen setting of each design with a true
    removal by model."""
    rows = []
    for i, cell in enumerate(cells.itertuples()):
        keys = {"model": cell.model, "precision": "16", "measured_by": "generation"}
        keys |= {"n_hazardous": N, "n_benign": N, "n_refused_at_baseline": N, "status": "run"}
        keys |= {"sites_requested": 1, "sites_hit": 1, "benign_accuracy": 1.0, "accuracy_cost": 0.0}
        base = {"design": next(iter(designs)), "intervention": "none", "chosen": False}
        rows.append(keys | base | {"n_refusal": N, "removal": 0.0})
        for design, rates in designs.items():
            hits = int(rng.binomial(N, rates[i]))
            own = {"design": design, "intervention": "ablation", "chosen": True, "dose": 1.0}
            value, low, high = wilson(hits, N)
            own |= {"direction": "selected", "site": "residual", "layers": "0", "rank": 1}
            own |= {"removal": value, "removal_ci_low": low, "removal_ci_high": high}
            rows.append(keys | own | {"n_refusal": N - hits, "n_removed": hits})
    return frame_of("interventions", rows)


def _twice(count: int) -> tuple[np.ndarray, list[str]]:
    """Sizes over three orders of magnitude, each of a dense model and a mixture of experts."""
    sizes = np.repeat(np.logspace(0, 3, count), 2)
    return sizes, ["dense-hybrid", "moe-hybrid"] * count


def steps_or_trend(positive: bool, seed: int) -> Tables:
    """xs-1: 14 sizes, a dense model and a mixture of experts of each; removal falls in two steps
    (0.95, 0.5, 0.05) over log10 size, or straight on the log-odds scale from 0.95 to 0.05."""
    rng, (sizes, kinds) = np.random.default_rng(seed), _twice(14)
    place = np.log10(sizes) / 3
    logit = 2.94 - 5.88 * place
    rates = (
        np.select([place < 0.35, place < 0.7], [0.95, 0.5], 0.05)
        if positive
        else 1 / (1 + np.exp(-logit))
    )
    cells = _cells(sizes, kinds)
    return {"cells": cells, "interventions": _interventions(cells, {"ablation-dose": rates}, rng)}


def kind_or_size(positive: bool, seed: int) -> Tables:
    """xs-8: six sizes, a dense model and a mixture of experts of each; removal by two designs goes
    with the architecture (0.9 and 0.2), or with the size (0.9 down to 0.2)."""
    rng, (sizes, kinds) = np.random.default_rng(seed), _twice(6)
    dense = np.array(kinds) == "dense-hybrid"
    rates = np.where(dense, 0.9, 0.2) if positive else 0.9 - 0.7 * np.log10(sizes) / 3
    cells = _cells(sizes, kinds)
    designs = {"ablation-dose": rates, "weight-projection": rates**2}
    return {"cells": cells, "interventions": _interventions(cells, designs, rng)}


def recurrent_or_not(positive: bool, seed: int) -> Tables:
    """xs-19: 24 mixtures of experts with recurrent layers and 24 without, of matched sizes. Those
    with are holographic with probability 0.95, those without 0.05; or all with 0.5."""
    rng, sizes = np.random.default_rng(seed), np.repeat(np.linspace(100, 400, 24), 2)
    kinds = ["moe-hybrid", "moe-attention"] * 24
    cells = _cells(sizes, kinds)
    chance = np.where(np.array(kinds) == "moe-hybrid", 0.95, 0.05) if positive else np.full(48, 0.5)
    rows = [
        {
            "model": model,
            "precision": "16",
            "phase": "holographic" if rng.random() < p else "three_pathway",
            "thresholds_sha256": "simulated",
        }
        for model, p in zip(cells["model"], chance, strict=True)
    ]
    return {"cells": cells, "phases": frame_of("phases", rows)}


SIMULATED: dict[str, Callable[[bool, int], Tables]] = {
    "ff-4": size_and_rate,
    "ff-5": two_of_a_size,
    "xs-1": steps_or_trend,
    "xs-8": kind_or_size,
    "xs-19": recurrent_or_not,
}
