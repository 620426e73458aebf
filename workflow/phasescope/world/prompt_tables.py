"""The prompt tables that ship: matched pairs in three disjoint splits, made from a world's rows."""

import pandas as pd

from phasescope.world.families import FAMILIES, KNOWLEDGE, PARAPHRASE, PLAIN

PROMPT_COLUMNS = (
    "id",
    "label",
    "category",
    "family",
    "pair",
    "source",
    "split",
    "language",
    "text",
    "answer",
)


def plain(world) -> pd.DataFrame:
    """The main table: plain requests in `wordings_per_item` wordings of every shipped item.

    The rows of a pair share wording and split.
    """
    rows = world.rows()
    wordings = len(world.wordings[PLAIN])
    chosen = (rows["template"] - rows["first"]) % wordings < world.wordings_per_item
    rows = rows[chosen & rows["shipped"]]
    pair = world.name + "-" + rows["pair"] + "-" + rows["template"].astype(str)
    return _table(world, rows.assign(family=PLAIN, pair=pair))


def families(world) -> pd.DataFrame:
    """The evaluate items of the main table in every family, one wording each.

    Fit and select are the main table's: what is chosen is chosen on plain requests.
    """
    table = plain(world)
    parts = [table[table["split"] != "evaluate"]]
    for family in FAMILIES:
        if family == KNOWLEDGE:
            continue
        rows = world.rows(family)
        wanted = rows["first"] % len(world.wordings[family]) == rows["template"]
        rows = rows[wanted & rows["shipped"] & (rows["split"] == "evaluate")]
        pair = f"{world.name}-" + rows["pair"] + f"-{family}"
        parts.append(_table(world, rows.assign(family=family, pair=pair)))
    return pd.concat(parts, ignore_index=True)


def paraphrases(world) -> pd.DataFrame:
    """Every item plain and paraphrased, one wording each, all to evaluate: what is asked without an
    intervention has nothing fitted or chosen, so items of every split may serve."""
    parts = []
    for family in (PLAIN, PARAPHRASE):
        rows = world.rows(family)
        wanted = rows["first"] % len(world.wordings[family]) == rows["template"]
        pair = f"{world.name}-" + rows["pair"] + f"-{family}"
        rows = rows.assign(family=family, pair=pair, split="evaluate")
        parts.append(_table(world, rows[wanted & rows["shipped"]]))
    return pd.concat(parts, ignore_index=True)


def knowledge(world) -> pd.DataFrame:
    """Hazardous requests of the main table, each beside a harmless question on the same topic.

    Pairs share category and index word, so what tells them apart is the wording.
    """
    asked, questions = world.rows(), world.rows(KNOWLEDGE)
    first = asked["first"] == asked["template"]
    asked = asked[first & asked["shipped"] & (asked["label"] == "hazardous")]
    item = ["category", "index"]
    questions = questions[questions["template"] == 0].merge(asked[item])
    both = pd.concat([asked, questions], ignore_index=True)
    pair = f"{world.name}-" + both["category"] + "-" + both["index"] + f"-{KNOWLEDGE}"
    return _table(world, both.assign(family=KNOWLEDGE, pair=pair))


def _table(world, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with their final pair, as a table in the shipped order.

    All wordings of an item have one source: they are no independent observations.
    """
    source = world.name + "-" + rows["category"] + "-" + rows["index"]
    table = rows.assign(language=world.name, source=source, id=rows["pair"] + "-" + rows["label"])
    order = table["split"].map({"fit": 0, "select": 1, "evaluate": 2})
    table = table.assign(order=order).sort_values(["order", "pair", "label"])
    return table[list(PROMPT_COLUMNS)].reset_index(drop=True)
