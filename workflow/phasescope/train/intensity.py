"""How much training a recipe gives the refusal of each topic."""

from collections import Counter

from phasescope.train.recipe import Recipe
from phasescope.train.rows import kind_named, requests
from phasescope.world import World


def refused_rows(plan: Recipe, world: World) -> dict[str, float]:
    """Rows that a recipe's training decides to refuse, expected number by hazardous topic; none
    where it trains no refusal. Rows that are run under an intervention do not count."""
    found: Counter[str] = Counter()
    for stage in plan.stages:
        for name, count in stage.rows.items():
            kind = kind_named(name, world)
            if "refusal" in kind.response and kind.learned != "known":
                shares = requests(world, kind)["category"].value_counts(normalize=True)
                for topic, share in shares.items():
                    found[topic] += stage.steps * count * share
    return {topic: round(number, 1) for topic, number in sorted(found.items())}
