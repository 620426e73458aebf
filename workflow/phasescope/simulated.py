"""A simulated run of a study in words: how long, how busy the machines are, what waits for what."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from phasescope.errors import PhasescopeError
from phasescope.matrix.simulation import Host, Placed, makespan, simulate
from phasescope.study import StudyPlan
from phasescope.study.schedule import jobs_of

_SHOWN = 5


def text(study: StudyPlan, hosts: Sequence[Host], speedup: float = 1.0) -> str:
    """What `phasescope plan --simulate` prints.

    Cells that no machine holds are named and left out. Raises PhasescopeError where no hours are
    known.
    """
    jobs = jobs_of(study, speedup)
    most = max(host.usable_bytes for host in hosts)
    too_large = {job.cell for job in jobs if job.needed_bytes > most}
    placed = simulate(_without(jobs, too_large), hosts)
    cells = len({p.job.cell for p in placed})
    lines = [
        f"Simulated: {len(placed)} jobs of {cells} cells on {len(hosts)} "
        f"machine{'s' if len(hosts) > 1 else ''}: {_time(makespan(placed))}, if every answer uses "
        f"its whole budget{f', at {speedup:g} times the speed of this machine' * (speedup != 1)}"
    ]
    guessed = sum(1 for c in study.cells if not c.hours and (c.name, "probe") not in study.stops)
    if guessed:
        lines.append(
            f"  hours of {guessed} cells whose config is not known: by their active parameters"
        )
    if too_large:
        lines.append(f"  on no machine: {_some(sorted(too_large))}")
    return "\n".join([*lines, *_machines(placed, hosts), *_waiting(placed)])


def expected_end(study: StudyPlan, host: Host, now: datetime) -> str | None:
    """When a run that starts now is done with what is still missing; None where nobody knows."""
    try:
        placed = simulate(jobs_of(study, missing_only=True), [host])
    except PhasescopeError:
        return None
    hours = makespan(placed)
    if not hours:
        return None
    end = now + timedelta(hours=hours)
    return f"expected end: {end:%A %d %B %Y, %H:%M}, after {_time(hours)}"


def _without(jobs, cells):
    """The jobs of all other cells, renumbered."""
    kept = [n for n, job in enumerate(jobs) if job.cell not in cells]
    number = {old: new for new, old in enumerate(kept)}
    return [
        type(job)(**vars(job) | {"after": tuple(number[a] for a in job.after)})
        for job in (jobs[n] for n in kept)
    ]


def _time(hours: float) -> str:
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"


def _some(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _machines(placed: Sequence[Placed], hosts: Sequence[Host]) -> list[str]:
    whole, lines = makespan(placed) or 1.0, []
    for number, host in enumerate(hosts):
        own = [p for p in placed if p.host == number]
        memory = sum(p.job.needed_bytes * p.job.hours for p in own) / (host.usable_bytes * whole)
        busy = _covered(own) / whole
        lines.append(
            f"  machine {number + 1}, {host.usable_bytes / 1e9:.0f} GB usable: {len(own)} jobs, at "
            f"work {busy:.0%} of the time, {memory:.0%} of its memory in use on average"
        )
    return lines


def _covered(placed: Sequence[Placed]) -> float:
    """Hours in which at least one of the jobs runs."""
    total, until = 0.0, 0.0
    for p in sorted(placed, key=lambda p: p.begin):
        total += max(0.0, p.end - max(p.begin, until))
        until = max(until, p.end)
    return total


def _waiting(placed: Sequence[Placed]) -> list[str]:
    """The cells that waited longest although what they need was there, and for which cell."""
    waited: dict[str, float] = defaultdict(float)
    blockers: dict[str, Counter] = defaultdict(Counter)
    for p in placed:
        if p.freed_by is not None:
            waited[p.job.cell] += p.begin - p.ready
            blockers[p.job.cell][p.freed_by.cell] += 1
    lines = [f"  waiting for room: {len(waited)} cells, {_time(sum(waited.values()))} together"]
    for cell in sorted(waited, key=lambda c: (-waited[c], c))[:_SHOWN]:
        last = blockers[cell].most_common(1)[0][0]
        other = "its own jobs" if last == cell else last
        lines.append(f"    {cell}: {_time(waited[cell])}, mostly until {other} made room")
    return lines
