"""Rows of the table `interventions`, as a phase sees them."""

from functools import cache

from phasescope.stats import paired_difference, wilson

N = 64


def _ends(name, values) -> dict:
    return dict(zip((name, f"{name}_ci_low", f"{name}_ci_high"), values, strict=True))


@cache
def _cost(lost: int) -> tuple:
    return paired_difference(lost, 0, N)


def row(kind="none", design="ablation-scope", refused=N, full=0, lost=0, right=N, **more) -> dict:
    """A generated row of the table `interventions`: `full` of `refused` prompts now answered."""
    return {
        "model": "m",
        "precision": "16",
        "design": design,
        "intervention": kind,
        "direction": None if kind == "none" else "selected",
        "site": None if kind == "none" else "residual",
        "layers": None if kind == "none" else "0,1",
        "dose": None if kind == "none" else 1.0,
        "measured_by": "generation",
        "chosen": kind != "none",
        "n_hazardous": N,
        "n_benign": N,
        "n_refusal": refused if kind == "none" else N - full,
        "n_full": N - refused if kind == "none" else full,
        "grades": ("r" * refused).ljust(N, "f") if kind == "none" else ("f" * full).ljust(N, "r"),
        "n_refused_at_baseline": refused,
        "n_removed": full,
        "clean": True,
        **_ends("removal", wilson(full, refused)),
        **_ends("benign_accuracy", wilson(right - lost, N)),
        **_ends("accuracy_cost", _cost(lost)),
        "n_benign_lost": lost,
        "n_benign_gained": 0,
        "n_benign_finished": N,
        "n_benign_refusal": 0,
        "n_missing": 0,
        "position": None if kind == "none" else "last_prompt",
        "rank": None if kind == "none" else 1,
        "sites_requested": 2,
        "sites_hit": 2,
        "status": "run",
    } | more


def shams(full: int, draws=20, **more) -> list[dict]:
    """Shams beside it; each removes `full`."""
    return [
        row("ablation", full=full, chosen=False, direction="sham", sham_draw=i, **more)
        for i in range(draws)
    ]


def pathways(one: int, two: int, three: int, **more) -> list[dict]:
    """The factorial of A, R and S: prompts answered under one, two and all three of them."""
    full = {"A": one, "R": one, "S": one, "A+R": two, "A+S": two, "R+S": two, "A+R+S": three}
    rows = []
    for name, count in full.items():
        single = {"A": "ablation", "R": "routing_mask", "S": "ablation"}.get(name)
        pathways = None if single else name
        site = {"A": "mixer", "R": "expert_selection", "S": "residual"}.get(name, "several")
        kind = single or "combination"
        more = more | {"pathways": pathways, "site": site}
        rows.append(row(kind, "pathways", full=count, **more))
    return rows + shams(3, design="pathways")


def ladder(broken_at: int, full: int = 0, lost: int = 40, random_lost: int = 0) -> list[dict]:
    """Ranks 1 to 16; from `broken_at` on nothing is refused, at that cost beside random's."""
    rows = []
    for rank in (1, 2, 4, 8, 16):
        more = {"design": "rank-ladder", "rank": rank, "direction": "per_layer"}
        broken = rank >= broken_at
        edit = row("ablation", full=full if broken else 0, lost=lost if broken else 0, **more)
        rows.append(edit | {"n_refusal": 0 if broken else N})
        rows.append(
            row("ablation", **more | {"direction": "random"}, lost=random_lost, sham_draw=0)
        )
    return rows
