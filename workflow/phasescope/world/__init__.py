"""Symbolic worlds: languages without meaning, with exact grades, that organisms are trained on."""

from phasescope.errors import PhasescopeError
from phasescope.world.base import GRADES, PROMPT_COLUMNS, World
from phasescope.world.world_a import WorldA

WORLDS: dict[str, World] = {world.name: world for world in (WorldA(),)}


def get(name: str) -> World:
    """The world of that name.

    Raises PhasescopeError naming the worlds that exist.
    """
    if name not in WORLDS:
        raise PhasescopeError(f"no world {name!r}; worlds: {', '.join(WORLDS)}")
    return WORLDS[name]


__all__ = ["GRADES", "PROMPT_COLUMNS", "WORLDS", "World", "get"]
