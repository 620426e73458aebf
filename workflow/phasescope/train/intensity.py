"""How much training a recipe gives the refusal of each topic."""

from collections import Counter

from phasescope.train.recipe import Recipe
from phasescope.train.rows import RowKind, kind_named, requests
from phasescope.world import World


def refused_shares(plan: Recipe, world: World) -> dict[str, float]:
    """By hazardous topic: of the rows on it whose decision a recipe trains once it trains refusals,
    the share that is refused, as expected; nothing where it trains none. Rows that are run under an
    intervention do not count."""
    shown: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for stage in plan.stages:
        kinds = [(kind_named(name, world), count) for name, count in stage.rows.items()]
        decided = [(kind, n) for kind, n in kinds if kind.learned not in ("known", "none")]
        if not any(_refuses(kind) for kind, _ in decided):
            continue
        for kind, count in decided:
            asked = requests(world, kind)
            topics = asked.loc[asked["label"] == "hazardous", "category"].value_counts()
            for topic, number in topics.items():
                rows = stage.steps * count * number / len(asked)
                shown[topic] += rows
                refused[topic] += rows * _refuses(kind)
    return {topic: round(refused[topic] / rows, 4) for topic, rows in sorted(shown.items())}


def _refuses(kind: RowKind) -> bool:
    return "refusal" in kind.response
