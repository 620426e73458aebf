"""Intervention settings as the page shows them: where on the axis, against which shams."""

import numpy as np
import pandas as pd

from phasescope.report import formats
from phasescope.report.names import pretty
from phasescope.report.study import Model, Study

DESIGNS = (
    "ablation-layers",
    "ablation-coverage",
    "ablation-dose",
    "ablation-scope",
    "ablation-per-layer",
    "addition",
    "weight-projection",
    "pathways",
    "rank-ladder",
)
# what a control has in common with the setting it stands beside
SAME = ["precision", "design", "position", "site", "pathways", "layers", "dose"]


def layer_numbers(layers: str | None) -> list[int]:
    """The blocks of a comma-separated list."""
    return (
        [] if formats.missing(layers) else [int(part) for part in layers.split(",") if part.strip()]
    )


def ranges(layers: str | None) -> str:
    """Blocks in short: '0-3, 6' for '0,1,2,3,6'; empty when none is named."""
    runs: list[list[int]] = []
    for layer in sorted(set(layer_numbers(layers))):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in runs)


def is_sham(rows: pd.DataFrame) -> pd.Series:
    """Which rows are sham draws rather than the real intervention."""
    return rows["sham_draw"].notna()


def settings_of(study: Study, model: Model) -> pd.DataFrame:
    """All measured settings of a model, without baselines, with three more columns.

    `sham` says whether it is a sham; `blocks` is the mean number of the edited blocks; `coverage`
    their share of the model's blocks, missing where the model was not probed.
    """
    rows = study.of("interventions", model.id, status="run")
    rows = rows[rows["intervention"] != "none"].copy()
    depth = study.of("probes", model.id)["layer"].max() + 1
    numbers = [layer_numbers(layers) for layers in rows["layers"]]
    rows["sham"] = is_sham(rows)
    rows["blocks"] = [np.mean(n) if n else np.nan for n in numbers]
    rows["coverage"] = [len(n) / depth if n else np.nan for n in numbers]
    return rows


def designs_of(study: Study, model: Model) -> list[str]:
    """Designs that the model's rows name, run or not, in the order of the methods."""
    found = study.of("interventions", model.id)
    names = set(found["design"]) - {"baseline", "none"}
    return [d for d in DESIGNS if d in names] + sorted(names - set(DESIGNS))


def percentile_95(values: pd.Series) -> float:
    """95th percentile of shams; missing when there is none."""
    known = values.dropna()
    return float(np.percentile(known, 95)) if len(known) else float("nan")


def proven(study: Study, model: Model) -> list[dict]:
    """Generated and graded settings, a dict each, with their design's shams beside."""
    rows = settings_of(study, model)
    rows = rows[rows["measured_by"] == "generation"]
    found = []
    for row in rows[~rows["sham"]].to_dict("records"):
        cell = rows[
            (rows["precision"] == row["precision"])
            & (rows["design"] == row["design"])
            & rows["sham"]
        ]
        values = {k: None if formats.missing(v) else v for k, v in row.items()}
        found.append(
            values
            | {
                "sham_p95": percentile_95(cell["removal"]),
                "n_shams": len(cell),
                "where": where(values),
            }
        )
    order = {d: i for i, d in enumerate(designs_of(study, model))}
    return sorted(
        found,
        key=lambda r: (
            -int(r["precision"]),
            order[r["design"]],
            not r["chosen"],
            r["dose"] or 0,
            r["layers"] or "",
        ),
    )


def where(row: dict) -> str:
    """What a setting acts on, in words: pathways, or direction and site; position; blocks."""
    blocks = ranges(row["layers"])
    number = len(layer_numbers(row["layers"]))
    if formats.missing(row["pathways"]):
        parts = [pretty(row[c]) for c in ("direction", "site") if not formats.missing(row[c])]
    else:
        parts = [row["pathways"].replace("+", " + ")]
    if not formats.missing(row["position"]) and row["position"] != "last_prompt":
        parts.append(f"read at the {pretty(row['position'])}")
    parts += [f"block{'s' * (number > 1)} {blocks}"] * bool(blocks)
    return ", ".join(p for p in parts if p)


def not_clean(rows: pd.DataFrame) -> pd.Series:
    """Which settings cost too much accuracy to count; a missing verdict is not one of them."""
    return rows["clean"].map({False: True}).fillna(False).astype(bool)


def largest(rows: pd.DataFrame) -> str:
    """The largest removal at each precision, in a sentence."""
    real = rows[~rows["sham"] & (rows["measured_by"] == "generation") & rows["removal"].notna()]
    parts = []
    for precision, here in real.groupby("precision", sort=False):
        top = here.loc[here["removal"].idxmax()]
        removal, cost = (
            formats.estimate(top[c], top[f"{c}_ci_low"], top[f"{c}_ci_high"])
            for c in ("removal", "accuracy_cost")
        )
        parts.append(f"{pretty(precision)}: largest removal {removal} at a cost of {cost}")
    return f"{'; '.join(parts) or 'Scored at the first answer token only'}."


def counts(rows: pd.DataFrame) -> str:
    """n behind the points of a figure, by how they were measured, in a sentence."""
    parts, real, shams = [], rows[~rows["sham"]], rows[rows["sham"]]
    for by, words in (("first_token", "scored"), ("generation", "generated")):
        here = real[real["measured_by"] == by]
        if len(here):
            hazardous, benign = (
                formats.span(here[c], formats.count) for c in ("n_hazardous", "n_benign")
            )
            parts.append(f"{words}: n = {hazardous} hazardous and {benign} benign prompts a point")
    draws = shams.groupby(["precision", "design"])["sham_draw"].nunique()
    if len(draws):
        only = ", on hazardous prompts only" * bool((shams["n_benign"] == 0).all())
        parts.append(f"shams: n = {formats.span(draws, formats.count)} draws a design{only}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
