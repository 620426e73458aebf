"""Schemas of verdicts on claims, and of the controls that they rest on."""

from phasescope.tables.columns import CELL, REASON, VERDICTS, Column, count, flag, number, text

SIDES = ("positive", "negative")
_ABOUT = text("claim", "id of the claim: phasescope explain ID")

VERDICT_SCHEMAS: dict[str, tuple[Column, ...]] = {
    # one row a claim and what it is judged on
    "claims": (
        _ABOUT,
        text("scope", "what one verdict is of", allowed=("cell", "model", "study")),
        text("model", "id of the model; empty: the study", nullable=True),
        text("precision", "bits; empty: all of the model", nullable=True, allowed=CELL[1].allowed),
        text("subject", "pair, writer or comparison, where there are several", nullable=True),
        text("statistic", "the quantity that decides, with its unit in `phasescope explain`"),
        number("estimate", "its value"),
        number("ci_low", "lower end of its 95 % interval"),
        number("ci_high", "upper end of its 95 % interval"),
        number("ci_low_holm", "lower end at the level adjusted for test and family (Holm)"),
        number("ci_high_holm", "upper end at that level"),
        count("n", "prompts (of comparisons: models) behind it", nullable=True),
        number("threshold", "the limit it is compared with"),
        text("threshold_key", "its key in the file of thresholds", nullable=True),
        number(
            "changes_at",
            "value of that threshold, the nearest, beyond which the verdict is no longer this one; "
            "all else as it is",
        ),
        text("claimed", "side of the limit", nullable=True, allowed=("above", "below")),
        number("p", "two-sided p of the limit, all conditions of the claim included"),
        number("p_holm", "adjusted over the claim's cells, models or subjects"),
        text("verdict", "the verdict", allowed=VERDICTS),
        text("came_out", "what it would be, were the claim calibrated", allowed=VERDICTS),
        flag("calibrated", "both controls came out right"),
        text("controls", "what its controls came out as"),
        text("evidence", "every condition with interval and limit", nullable=True),
        text("thresholds_sha256", "hash of the file of thresholds"),
        REASON,
    ),
    # of a calibration study: claim x control x organism and seed
    "calibration_claims": (
        _ABOUT,
        text("control", "true or false by construction", allowed=SIDES),
        text("kind", "what it enters as"),
        text("names", "organisms, writers, endpoints, or the simulated process"),
        text("organism", "the organism, or several together", nullable=True),
        count("seed", "that it was trained or simulated from", nullable=True),
        text("made_by", "recipe of the organism, or the stage that made it", nullable=True),
        text("expected", "verdict that is right", allowed=VERDICTS),
        text("verdict", "verdict that came out; empty: none", nullable=True, allowed=VERDICTS),
        flag("right", "they are the same", nullable=True),
        REASON,
    ),
}
