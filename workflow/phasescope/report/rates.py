"""The section of rates: what was answered, and how models compare, measured beside published."""

from collections.abc import Sequence

import pandas as pd

from phasescope.report.study import Model, Study, records

SHOWN = ("strict_asr", "broad_asr", "refusal", "false_refusal", "detected_proceeded")


def measured(study: Study, drawn: Sequence[Model]) -> list[dict]:
    """A row a cell of these models, unedited, on the main prompts: each shown rate, or None."""
    rates = study.tables["behavior_rates"]
    own = rates[
        (rates["prompt_table"] == "main")
        & (rates["condition"] == "baseline")
        & (rates["temperature"] == 0)
        & (rates["by"] == "all")
    ]
    found = []
    for model in drawn:
        for precision in study.precisions:
            cell = own[(own["model"] == model.id) & (own["precision"] == precision)]
            if len(cell):
                by = {row["statistic"]: row for row in records(cell)}
                rates_of = {name: by.get(name) for name in SHOWN}
                found.append({"of": model, "precision": precision, "rates": rates_of})
    return found


def compared(study: Study) -> list[dict]:
    """Rows of the table `across_models`, claim by claim, measured ones first."""
    across = study.tables["across_models"]
    order = across.assign(
        published=across["origin"] != "measured",
        differs=pd.Categorical(across["measure"], across["measure"].unique()),
    )
    return records(order.sort_values(["claim", "published", "statistic", "differs"], kind="stable"))


def section(study: Study, drawn: Sequence[Model]) -> dict | None:
    """What the section shows; None for a study whose answers nobody counted."""
    if not {"behavior_rates", "across_models"} <= set(study.tables):
        return None
    return {"shown": SHOWN, "measured": measured(study, drawn), "compared": compared(study)}
