"""The survey: tables beside `probes`, each asked for by name."""

from collections.abc import Callable
from pathlib import Path

from phasescope.behave import Subject
from phasescope.probe.channels import channel_rows
from phasescope.probe.geometry import geometry_rows
from phasescope.probe.patching import patching_rows
from phasescope.probe.routing import routing_rows
from phasescope.probe.sites import site_rows
from phasescope.probe.trajectories import trajectory_rows

# table -> its rows, from a subject, the path of its refusal openings, and the seed
_TABLES: dict[str, Callable[[Subject, Path, int], list[dict]]] = {
    "sites": lambda subject, openings, seed: site_rows(subject, seed),
    "channels": lambda subject, openings, seed: channel_rows(subject, seed),
    "patching": lambda subject, openings, seed: patching_rows(subject, openings),
    "routing": lambda subject, openings, seed: routing_rows(subject, seed),
    "trajectories": lambda subject, openings, seed: trajectory_rows(subject, seed),
    "geometry": lambda subject, openings, seed: geometry_rows(subject, seed),
}


def survey(table: str, subject: Subject, openings: Path, seed: int) -> list[dict]:
    """Rows of one table of the survey, without the cell's keys.

    What a model lacks gives a row with the reason, never an empty table or zeros.
    """
    return _TABLES[table](subject, openings, seed)
