"""The factorial of pathways: what each subset of mixers, routing and late stream removes."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator

from phasescope.report import formats
from phasescope.report.names import FAINT, INK, MUTED, PAPER, pretty
from phasescope.report.panels import Row, finish, grid, key, say_why
from phasescope.report.settings import is_sham, not_clean
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style
from phasescope.stats import wilson

DESIGN = "pathways"
NOTHING = "none"
SUBSETS = (NOTHING, "A", "R", "S", "A+R", "A+S", "R+S", "A+R+S")
_SITES = {"mixer": "A", "expert_selection": "R", "residual": "S"}
_MEASURES = ("removal", "refusal")
_ROWS = {
    "removal": Row(
        "Clean removal",
        "share of refused prompts now cleanly answered; 0 where the cost is too high",
        1.2,
        (-0.04, 1.06),
    ),
    "refusal": Row("Refusal", "share of hazardous prompts that are refused", 1.2, (-0.04, 1.06)),
}
# measure -> limits: section and key in the file of thresholds, line, words
_LIMITS = {
    "removal": (
        ("claims", "min_removal", (0, (5, 2)), "removed: at least"),
        ("claims", "max_part_removal", (0, (1, 1.5)), "stays: at most"),
    ),
    "refusal": (("phases", "max_broken_refusal", (0, (4, 1.5, 1, 1.5)), "broken: at most"),),
}
_SHAM = {"color": "#d55e00", "lw": 1.3, "ls": "-"}
_HOLLOW = {"ls": "", "marker": "s", "ms": 6, "mfc": PAPER, "mec": MUTED, "mew": 0.9}


def subsets(study: Study, model: Model) -> pd.DataFrame:
    """A row a precision, position and subset of pathways, and per draw of its shams: removal and
    refusal with intervals, `sham_draw`, whether it is `clean`, and `n` hazardous prompts."""
    rows = study.of("interventions", model.id, design=DESIGN, status="run")
    rows = rows[(rows["measured_by"] == "generation") & (rows["n_hazardous"] > 0)].copy()
    rows["subset"] = rows["pathways"].fillna(rows["site"].map(_SITES))
    rows.loc[rows["intervention"] == "none", ["subset", "removal"]] = NOTHING, 0.0
    rows = rows[rows["subset"].isin(SUBSETS) & (rows["removal"].notna() | is_sham(rows))]
    counts = rows[["n_refusal", "n_hazardous"]].itertuples(index=False)
    found = [wilson(int(hits), int(n)) for hits, n in counts]
    for place, end in enumerate(("", "_ci_low", "_ci_high")):
        rows[f"refusal{end}"] = [f[place] for f in found]
    kept = ["precision", "position", "subset", "sham_draw", "clean", "chosen"]
    ends = [f"{m}{end}" for m in _MEASURES for end in ("", "_ci_low", "_ci_high")]
    return rows[[*kept, *ends, "n_hazardous"]].rename(columns={"n_hazardous": "n"})


def factorial(study: Study, model: Model) -> Drawing | None:
    """Removal and refusal by subset, precisions across; None where no subset was generated."""
    rows = subsets(study, model)
    real = rows[rows["sham_draw"].isna() & (rows["subset"] != NOTHING)]
    if real.empty:
        return None
    places = list(dict.fromkeys(real["position"].dropna())) or [None]
    shown = [(place, m) for place in places for m in _MEASURES]
    titles = {p: f", {pretty(p)}" if len(places) > 1 else "" for p in places}
    lines = [_of(_ROWS[m], f"{_ROWS[m].title}{titles[p]}") for p, m in shown]
    with style():
        figure, axes = grid(lines, study.precisions)
        for line, (place, measure) in zip(axes, shown, strict=True):
            for ax, precision in zip(line, study.precisions, strict=True):
                cell = rows[rows["precision"] == precision]
                here = cell[(cell["position"] == place) | (cell["subset"] == NOTHING)]
                if (here["sham_draw"].isna() & (here["subset"] != NOTHING)).any():
                    _panel(ax, here, cell, measure)
                    _limits(study, ax, measure)
                else:
                    say_why(ax, _why(study, model, precision, cell))
        finish(axes, "pathways taken away together", FixedLocator(range(len(SUBSETS))))
        for ax in (ax for line in axes for ax in line if ax.get_xlabel()):
            letters = ["–", *(s.replace("+", "") for s in SUBSETS[1:])]
            ax.xaxis.set_major_formatter(FixedFormatter(letters))
        key(figure, _key(study, rows))
        return drawing(
            figure,
            f"fig-factorial-{model.slug}",
            f"{model.id}: pathways, alone and together",
            f"Removal and refusal of each subset of pathways. {_best(real)}.",
            _caption(rows, real),
            rows,
        )


def why_none(study: Study, model: Model) -> list[str]:
    """Why no subset was generated, over the model's precisions."""
    if DESIGN not in study.config.get("designs", [DESIGN]):
        return [f"the configuration's key designs does not name {DESIGN}"]
    own = [v["precision"] for v in model.verdicts]
    return list(dict.fromkeys(study.why(model.id, p, "intervene", DESIGN) for p in own))


def _of(row: Row, title: str) -> Row:
    return Row(title, row.unit, row.height, row.limits)


def _why(study: Study, model: Model, precision: str, cell: pd.DataFrame) -> str:
    if (cell["subset"] != NOTHING).any():
        return "hazard cannot be read at this position"
    return study.why(model.id, precision, "intervene", DESIGN)


def _panel(ax: Axes, here: pd.DataFrame, cell: pd.DataFrame, measure: str) -> None:
    """Bars of the subsets; across them the bound of the cell's shams, wherever they were drawn."""
    real = here[here["sham_draw"].isna()]
    x = [SUBSETS.index(s) for s in real["subset"]]
    soiled = not_clean(real)
    faces = [PAPER if hollow else FAINT for hollow in soiled]
    edges = [MUTED if hollow else FAINT for hollow in soiled]
    ax.bar(x, real[measure], 0.62, color=faces, edgecolor=edges, lw=0.9)
    ends = real[f"{measure}_ci_low"], real[f"{measure}_ci_high"]
    ax.vlines(x, *ends, color=INK, lw=1.1)
    ax.plot(x, real[measure], ls="", marker="o", ms=3.2, color=INK)
    bound = sham_bound(cell, measure)
    if bound is not None:
        ax.axhline(bound, **_SHAM)
    for place in set(range(len(SUBSETS))) - set(x):
        ax.text(place, 0.04, "not run", rotation=90, ha="center", color=MUTED, size=6.5)
    ax.set_xlim(-0.6, len(SUBSETS) - 0.4)


def sham_bound(cell: pd.DataFrame, measure: str) -> float | None:
    """What 95 % of a cell's shams stay within: below it for a removal, above it for refusal."""
    draws = cell.loc[cell["sham_draw"].notna(), measure].dropna()
    return float(draws.quantile(0.95 if measure == "removal" else 0.05)) if len(draws) else None


def _limits(study: Study, ax: Axes, measure: str) -> None:
    for section, name, dashes, _ in _LIMITS[measure]:
        if (limit := study.limit(section, name)) is not None:
            ax.axhline(limit, color=MUTED, lw=0.9, ls=dashes, zorder=0.9)


def _key(study: Study, rows: pd.DataFrame) -> list[tuple[str, dict]]:
    entries = [("not clean", _HOLLOW)] * bool(not_clean(rows[rows["sham_draw"].isna()]).any())
    if rows["sham_draw"].notna().any():
        entries.append(("95 % of the shams stay within", _SHAM))
    for limits in _LIMITS.values():
        for section, name, dashes, words in limits:
            if (limit := study.limit(section, name)) is not None:
                entries.append((f"{words} {limit:g}", {"color": MUTED, "lw": 0.9, "ls": dashes}))
    return entries


def _best(real: pd.DataFrame) -> str:
    parts = []
    for precision, here in real.groupby("precision", sort=False):
        top = here.loc[here["removal"].idxmax()]
        found = (top[f"removal{end}"] for end in ("", "_ci_low", "_ci_high"))
        parts.append(f"{pretty(precision)}: most by {top['subset']}, {formats.estimate(*found)}")
    return "; ".join(parts)


def _caption(rows: pd.DataFrame, real: pd.DataFrame) -> str:
    parts = [
        "A: outputs of attention and recurrent mixers; R: routing to safety experts; S: late "
        "residual stream; –: nothing taken away. Bars: 95 % Wilson intervals."
    ]
    if not real["subset"].str.contains("R").any():
        parts.append("No subset with R: the model has no expert that could be masked.")
    shams = rows[rows["sham_draw"].notna()]
    draws = shams.groupby("precision")["sham_draw"].nunique()
    if len(draws):
        of = formats.listing(dict.fromkeys(s.replace("+", "") for s in shams["subset"]))
        parts.append(
            f"Shams match the subset chosen on the select split ({of}), n = "
            f"{formats.span(draws, formats.count)} draws a precision: their 95th percentile of "
            "removal, clean or not, and 5th of refusal."
        )
    n = formats.span(real["n"], formats.count)
    return " ".join([*parts, f"{_best(real)}. n = {n} hazardous prompts a bar."])
