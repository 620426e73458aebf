"""Figures over depth: where safety can be read, how far apart, and whether it is one direction."""

import pandas as pd

from phasescope.report import formats
from phasescope.report.names import FAINT, INK, MUTED, pretty
from phasescope.report.panels import Row, curve, finish, grid, key, nice, rule, say_why
from phasescope.report.study import Model, Study
from phasescope.report.svg import Drawing, drawing, style

_POSITIONS = ("last_prompt", "end_of_thinking", "answer_0", "answer_1", "answer_2")
_SOLID, _DASHED, _DOTTED = "-", (0, (4, 2)), (0, (1, 1.6))

# statistic -> line; the first of a figure is its subject, the rest are what it is held against
_AUROC = {
    "auroc": {"color": INK, "ls": _SOLID},
    "auroc_permuted_labels": {"color": MUTED, "ls": _DASHED, "lw": 1.1, "band": 0.07},
    "auroc_random_direction": {"color": FAINT, "ls": _DOTTED, "lw": 1.3, "band": 0.07},
}
_GAP = {"gap": {"color": INK, "ls": _SOLID}}
_ONE = {
    "split_half_cosine": {"color": INK, "ls": _SOLID},
    "cosine_next_layer": {"color": MUTED, "ls": _DASHED, "lw": 1.1},
}


def _positions(frame: pd.DataFrame) -> list[str]:
    found = list(frame["position"].unique())
    return [p for p in _POSITIONS if p in found] + sorted(set(found) - set(_POSITIONS))


def _panel(ax, frame: pd.DataFrame, looks: dict) -> None:
    many = frame["layer"].nunique() > 24
    for statistic, look in looks.items():
        rows = frame[frame["statistic"] == statistic].dropna(subset="estimate").sort_values("layer")
        if len(rows):
            curve(
                ax,
                rows["layer"],
                rows["estimate"],
                rows["ci_low"],
                rows["ci_high"],
                not many,
                **look,
            )
    _mark_attention(ax, frame)
    ax.set_xlim(frame["layer"].min() - 0.5, frame["layer"].max() + 0.5)


def _mark_attention(ax, frame: pd.DataFrame) -> None:
    """Small ticks on the bottom axis at attention blocks, where a model has both kinds."""
    if frame["layer_kind"].nunique() > 1:
        layers = sorted(frame.loc[frame["layer_kind"] == "attention", "layer"].unique())
        ax.plot(
            layers,
            [0.0] * len(layers),
            ls="",
            marker="|",
            ms=7,
            mew=1.6,
            color=MUTED,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
        )


def _figure(study: Study, model: Model, looks: dict, unit: str, reference: float, **row) -> tuple:
    """Draw one kind of statistic: positions down, precisions across; None without any row."""
    probes = study.of("probes", model.id)
    probes = probes[probes["statistic"].isin(looks) & probes["estimate"].notna()]
    if probes.empty:
        return None, probes
    positions = _positions(probes)
    if "limits" in row:
        lowest = probes[["estimate", "ci_low"]].min(axis=None)
        row["limits"] = (min(row["limits"][0], lowest - 0.03), row["limits"][1])
    rows = [Row(pretty(p), unit, **row) for p in positions]
    figure, axes = grid(rows, study.precisions)
    for line, position in zip(axes, positions, strict=True):
        for ax, precision in zip(line, study.precisions, strict=True):
            here = probes[(probes["position"] == position) & (probes["precision"] == precision)]
            if here.empty:
                say_why(ax, _why(study, model, precision, probes))
            else:
                _panel(ax, here, looks)
                rule(ax, reference)
    finish(axes, "block, counted from 0", nice(8, integer=True))
    entries = [
        (pretty(s), {k: v for k, v in look.items() if k != "band"})
        for s, look in looks.items()
        if (probes["statistic"] == s).any()
    ]
    if probes["layer_kind"].nunique() > 1:
        entries.append(
            ("attention block", {"color": MUTED, "ls": "", "marker": "|", "ms": 7, "mew": 1.6})
        )
    if len(entries) > 1:
        key(figure, entries)
    return figure, probes


def _why(study: Study, model: Model, precision: str, probes: pd.DataFrame) -> str:
    if (probes["precision"] == precision).any():
        return "no activation at this position"
    return study.why(model.id, precision, "probe")


def _prompts(probes: pd.DataFrame) -> str:
    return f"n = {formats.span(probes['n'], formats.count)} prompts, both labels together"


def _best(study: Study, model: Model, probes: pd.DataFrame) -> str:
    """Where each precision reads best, in words."""
    words = []
    for precision in study.precisions:
        rows = probes[(probes["precision"] == precision) & (probes["statistic"] == "auroc")]
        if len(rows):
            top = rows.loc[rows["estimate"].idxmax()]
            value = formats.estimate(top["estimate"], top["ci_low"], top["ci_high"])
            place = f"at block {top['layer']}, {pretty(top['position'])}"
            words.append(f"{pretty(precision)}: highest {value} {place}")
    return "; ".join(words)


def auroc(study: Study, model: Model) -> Drawing | None:
    """Held-out AUROC over depth with its two controls, or None when nothing was probed."""
    with style():
        figure, probes = _figure(study, model, _AUROC, "AUROC, no unit", 0.5, limits=(0.27, 1.04))
        if figure is None:
            return None
        return drawing(
            figure,
            f"fig-depth-{model.slug}",
            f"{model.id}: where hazard can be read",
            "Held-out AUROC of hazardous against benign prompts over depth. "
            f"{_best(study, model, probes)}.",
            "How well the residual stream tells hazardous from matched benign prompts it was not "
            "fitted on (1 perfectly, dashed line 0.5 not at all), by block and token position. "
            "Bands: 95 % intervals, and for the two controls the central 95 % of their draws. At "
            f"answer tokens the model also reads what it has just said. {_prompts(probes)}.",
        )


def gap(study: Study, model: Model) -> Drawing | None:
    """Standardized gap over depth, or None when nothing was probed."""
    with style():
        figure, probes = _figure(study, model, _GAP, "pooled standard deviations", 0.0, height=0.95)
        if figure is None:
            return None
        return drawing(
            figure,
            f"fig-gap-{model.slug}",
            f"{model.id}: how far apart",
            "Standardized gap between hazardous and benign prompts over depth.",
            "Distance between the means of hazardous and benign prompts along the block's "
            "direction, in pooled standard deviations of that block. Bands: 95 % intervals. "
            f"{_prompts(probes)}.",
        )


def agreement(study: Study, model: Model) -> Drawing | None:
    """Split-half and neighbor cosines over depth, or None when nothing was probed."""
    with style():
        figure, probes = _figure(
            study, model, _ONE, "cosine, no unit", 0.0, height=0.95, limits=(-0.25, 1.08)
        )
        if figure is None:
            return None
        return drawing(
            figure,
            f"fig-cosine-{model.slug}",
            f"{model.id}: is it one direction",
            "Cosine of directions from two halves of the prompts, and of neighboring blocks, over "
            "depth.",
            "Whether two halves of the prompts give the same direction (split-half), and whether "
            "neighboring blocks share it. A cosine between blocks means little where the "
            "split-half one is low. Bands: central 95 % of the halves drawn; between blocks, 95 % "
            f"intervals. {_prompts(probes)}.",
        )
