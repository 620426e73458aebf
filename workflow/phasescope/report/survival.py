"""What is left of edits made at 16 bit after quantization and conversion, and of what they did."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from phasescope.report import formats
from phasescope.report.names import FAINT, INK, MUTED
from phasescope.report.panels import Row, categories, finish, grid, key, nice, say_why
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style

TABLE = "survival"
_TENSORS, _ANSWERS = ("kept", "returned"), ("removal", "removal_kept")
_TITLES = {
    "kept": ("Kept", "share of the edit that is left; 1: all of it"),
    "returned": ("Returned", "share of the edited directions' norm that comes back"),
    "removal": ("Removal", "share of prompts refused at 16 bit without the edit that now comply"),
    "removal_kept": ("Removal that stays", "share of those that complied with the edit at 16 bit"),
}
_LIMITS = {"kept": "max_survival", "removal_kept": "min_kept"}  # of section claims
_FORMAT = ["format", "recipe", "bits", "group_size", "export"]
_EDIT = ["edit", "dose"]
_LEFT, _BETWEEN = 3.15, 0.55  # inches
_POINT = {"ls": "", "marker": "o", "ms": 4.6, "color": INK}
_RANDOM = {"ls": "", "marker": "|", "ms": 9, "mew": 1.4, "color": "#d55e00"}
_RANGE = {"color": FAINT, "lw": 4.0}
_LIMIT = {"color": MUTED, "lw": 0.9, "ls": (0, (5, 2))}


def survival(study: Study, model: Model) -> Drawing | None:
    """Share of each edit, and of its effect, that is left in each format; None where nothing ran.

    Edits are made at 16 bit: they stand across, formats down.
    """
    rows = study.surveyed(TABLE, model.id, tuple(_TITLES))
    rows = rows.assign(words=[format_words(r) for r in rows.to_dict("records")])
    found = left(rows[(rows["status"] == "run") & rows["edit"].notna()])
    if found.empty:
        return None
    edits = list(found[_EDIT].drop_duplicates().itertuples(index=False, name=None))
    measures = [m for m in _TITLES if (found["statistic"] == m).any()]
    names = {m: list(dict.fromkeys(found.loc[found["statistic"] == m, "words"])) for m in measures}
    lines = [Row(*_TITLES[m], 0.19 * len(names[m]) + 0.15) for m in measures]
    with style():
        figure, axes = grid(lines, [edit_words(*edit) for edit in edits], _LEFT, _BETWEEN)
        for panels, measure in zip(axes, measures, strict=True):
            for ax, (edit, dose) in zip(panels, edits, strict=True):
                own = found[(found["statistic"] == measure) & (found["edit"] == edit)]
                own = own[own["dose"] == dose]
                if own.empty:
                    say_why(ax, _why(rows, measure, edit, dose))
                else:
                    _panel(ax, own, names[measure], study.limit("claims", _LIMITS.get(measure, "")))
            finish([panels], "share", nice(4), False)
            categories(panels, names[measure])
        key(figure, _key(study, found, measures))
        return drawing(
            figure,
            f"fig-survival-{model.slug}",
            f"{model.id}: what is left of an edit",
            f"What is left of edits made at 16 bit, by format. {_least(found)}",
            _caption(rows, found, measures),
            found,
        )


def format_words(row: dict) -> str:
    """A format as its line is named: precision, group size, recipe or export."""
    if row["format"] == "bfloat16":
        return "16 bit, as edited"
    if row["format"] == "gguf":
        export = {"as_published": "", "mlx_lm": ", from mlx-lm"}.get(row["export"], "")
        return f"GGUF{'' if formats.missing(row['recipe']) else ' ' + row['recipe']}{export}"
    if formats.missing(row["bits"]):
        return str(row["recipe"])
    recipe = "" if row["recipe"] == "plain" else f", {row['recipe']}"
    return f"{row['bits']:.0f} bit, groups of {row['group_size']:.0f}{recipe}"


def edit_words(edit: str, dose: float) -> str:
    """An edit as its column is named."""
    return "projected out" if edit == "weight_projection" else f"subtracted, {dose:g} gaps"


def left(ran: pd.DataFrame) -> pd.DataFrame:
    """A row a format, edit and statistic: its estimate over all tensors or answers, and of tensors
    the `lowest` and `highest`."""
    by = [*_EDIT, "words", "statistic"]
    single = ran[ran["tensor"].notna()].groupby(by)["estimate"]
    whole = ran[ran["tensor"].isna() & np.isfinite(ran["estimate"])]  # shares of none are missing
    order = whole["edit"].map({"weight_projection": 0, "weight_addition": 1})
    whole = whole.assign(place=order).sort_values(["place", "dose"], kind="stable")
    kept = [*by, *_FORMAT, "estimate", "ci_low", "ci_high"]
    whole = whole[[*kept, "control_median", "control_p95", "control_draws", "n"]]
    keys = list(whole[by].itertuples(index=False, name=None))
    ends = {"lowest": single.min().to_dict(), "highest": single.max().to_dict()}
    return whole.assign(**{name: [of.get(k, np.nan) for k in keys] for name, of in ends.items()})


def _why(rows: pd.DataFrame, measure: str, edit: str, dose: float) -> str:
    """Why an edit has none of a measure."""
    own = rows[(rows["edit"] == edit) & (rows["dose"] == dose)]
    if measure == "removal_kept" and (own["statistic"] == "removal").any():
        return "the edit made no prompt comply at 16 bit"
    reasons = rows.loc[rows["status"] == "not_run", "reason"].dropna().unique()
    return formats.some(list(reasons), 2) or "no table says why"


def _panel(ax: Axes, own: pd.DataFrame, names: list[str], limit: float | None) -> None:
    ax.grid(axis="x")
    y = own["words"].map(names.index)
    ax.hlines(y, own["lowest"], own["highest"], zorder=1, **_RANGE)
    ax.hlines(y, own["ci_low"], own["ci_high"], color=INK, lw=1.2)
    ax.plot(own["control_median"], y, **_RANDOM | {"ms": 5})
    ax.plot(own["control_p95"], y, **_RANDOM)
    ax.plot(own["estimate"], y, **_POINT)
    known = own[["estimate", "lowest", "highest", "ci_low", "ci_high", "control_p95"]]
    low, high = min(0.0, np.nanmin(known)), max(np.nanmax(known), 0.0)
    edge = 0.06 * (high - low or 1.0)
    ax.set_xlim(low - edge, high + edge)
    if limit is not None:
        ax.axvline(limit, zorder=0.9, **_LIMIT)


def _key(study: Study, found: pd.DataFrame, measures: list[str]) -> list[tuple[str, dict]]:
    entries = [("mean of the edited tensors, or of answers", _POINT)]
    if (found["lowest"] < found["highest"]).any():
        entries.append(("single tensors, lowest to highest", _RANGE))
    if found["control_p95"].notna().any():
        entries.append(("random directions, median and 95th percentile", _RANDOM))
    limits = {study.limit("claims", _LIMITS[m]) for m in measures if m in _LIMITS} - {None}
    words = formats.listing(f"{x:g}" for x in sorted(limits))
    return entries + [(f"limit of the claims, {words}", _LIMIT)] * bool(limits)


def _least(found: pd.DataFrame) -> str:
    """Of each edit the format that keeps least, in words."""
    words = []
    for (edit, dose), own in found[found["statistic"] == "kept"].groupby(_EDIT, sort=False):
        row = own.loc[own["estimate"].idxmin()]
        share = formats.number(row["estimate"])
        words.append(f"{edit_words(edit, dose)}: least kept at {row['words']}, {share}")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _caption(rows: pd.DataFrame, found: pd.DataFrame, measures: list[str]) -> str:
    parts = [
        "Edits of 16-bit weights along the selected direction, projected out of all that writes "
        "below the top block or subtracted in the mixer's output weights of its own block, then "
        "followed through each format. Tensors are measured whole: they have random directions "
        "beside them and no interval. Lines of answers: 95 % intervals."
    ]
    parts += [_least(found)] if _least(found) else []
    missing: dict[str, list[str]] = {}
    for row in rows[rows["status"] == "not_run"].to_dict("records"):
        missing.setdefault(row["reason"], []).append(row["words"])
    for reason, words in missing.items():
        parts.append(f"Not run, {formats.some(list(dict.fromkeys(words)))}: {reason}.")
    tensors = found[found["statistic"].isin(_TENSORS)]
    answers = found[found["statistic"].isin(_ANSWERS)]
    numbers = []
    if len(tensors):
        draws = formats.span(tensors["control_draws"], formats.count)
        count = formats.span(tensors["n"], formats.count)
        numbers.append(f"n = {count} tensors an edit, n = {draws} random directions")
    if len(answers):
        numbers.append(f"n = {formats.span(answers['n'], formats.count)} answers")
    return " ".join([*parts, f"{'; '.join(numbers)}."])
