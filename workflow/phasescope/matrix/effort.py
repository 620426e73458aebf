"""How many prompts each effort uses, and which designs it leaves out."""

# prompts per label and split, at most; claims want at least 60 hazardous prompts to evaluate
EFFORT = {
    "quick": {"fit": 64, "select": 32, "evaluate": 64},
    "standard": {"fit": 128, "select": 32, "evaluate": 100},
    "full": {"fit": 256, "select": 64, "evaluate": 400},
}

# designs of many generations, each resting on a claim of its own
LEFT_OUT = {"quick": ("temperature", "layer-count"), "standard": (), "full": ()}

# what `max_hours` drops, first to last, until a cell fits it: never what the phases are told by
DROPPED_FIRST = (
    "temperature",
    "layer-count",
    "topic-doses",
    "transfer",
    "projection-sets",
    "layer-types",
    "ablation-mixers",
    "integers",
    "expert-pruning",
    "expert-shares",
    "expert-silencing",
    "zero-logit",
    "hydra",
    "read-act",
    "additive-structural",
    "battery",
    "ablation-layers",
    "ablation-coverage",
    "addition",
    "ablation-scope",
)


def dropped_designs(
    designs: list[str], effort: str, max_hours: float | None, hours: dict[str, float], rest: float
) -> dict[str, str]:
    """Designs that a cell leaves out, and why.

    hours: expected of each design, empty while the machine's speed is not known; rest: of the
    cell's other stages.
    """
    found = {
        d: f"left out at effort {effort!r} (key 'effort')" for d in designs if d in LEFT_OUT[effort]
    }
    if max_hours is None or not hours:
        return found
    for design in (d for d in DROPPED_FIRST if d in designs and d not in found):
        total = rest + sum(hours[d] for d in designs if d not in found)
        if total <= max_hours:
            break
        found[design] = (
            f"dropped: the cell would take about {total:.2g} hours with it, allowed are "
            f"{max_hours:g} (key 'max_hours')"
        )
    return found
