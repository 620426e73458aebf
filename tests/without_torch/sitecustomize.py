"""Jobs of a tested study run as a user's do, without torch, which tests alone need: transformers
would load it in each of them, for seconds."""

from importlib.machinery import PathFinder

_find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "torch" else _find(name, *rest)
