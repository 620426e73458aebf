"""Where questions go: a model in this process, a local server, or a service."""

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from phasescope.errors import PhasescopeError
from phasescope.tables.provenance import sha256_file, sha256_json

IN_PROCESS = "mlx"
# Inspect's providers that need nothing but the one client library; other names are refused
PROVIDERS = ("openai-api", "ollama", "openrouter")
_NEEDS_NO_KEY = ("localhost", "127.0.0.1", "::1")
_NO_KEY = "none"  # what a local server without keys is given


@dataclass(frozen=True)
class Endpoint:
    """A model that answers chat messages, and how it is asked.

    model: `mlx` (in this process, from `folder`), or a name as Inspect AI writes it:
    `openai-api/SERVICE/MODEL`, `ollama/MODEL`, `openrouter/DEVELOPER/MODEL`. base_url: of the
    server, where the provider does not know it. system: system prompt. guard: folder of a model
    that is asked first, in this process; what it refuses is withheld, as a safety layer does.
    thinking: passed on to the chat template; None leaves it to the server. timeout_seconds: for one
    attempt; retries: after the first attempt, each after a wait that doubles from
    `backoff_seconds`.
    """

    model: str
    base_url: str | None = None
    folder: str | None = None
    system: str | None = None
    guard: str | None = None
    temperature: float = 0.0
    max_tokens: int = 512
    thinking: bool | None = None
    max_connections: int = 8
    timeout_seconds: float = 120.0
    retries: int = 5
    backoff_seconds: float = 3.0

    def __post_init__(self):
        provider = self.model.split("/")[0]
        if (self.model == IN_PROCESS) != (self.folder is not None):
            raise PhasescopeError(
                f"endpoint {self.model!r}: key 'folder': a checkpoint folder goes with model "
                f"{IN_PROCESS!r}, and with no other"
            )
        known = self.model == IN_PROCESS or provider in PROVIDERS
        if not known or (provider == "openai-api" and self.model.count("/") < 2):
            raise PhasescopeError(
                f"endpoint: key 'model': found {self.model!r}; allowed: {IN_PROCESS}, "
                "openai-api/SERVICE/MODEL, ollama/MODEL, openrouter/DEVELOPER/MODEL"
            )
        url = urlsplit(self.base_url or "")
        if url.username or url.password or url.query:
            raise PhasescopeError(
                f"endpoint {self.model!r}: key 'base_url': holds a user, password or query; keys "
                "come from the environment alone"
            )

    @property
    def in_process(self) -> bool:
        """Whether the model runs in this process."""
        return self.model == IN_PROCESS

    @property
    def name(self) -> str:
        """Short, for tables: the model's own name."""
        return Path(self.folder).name if self.folder else self.model

    @property
    def identity(self) -> str:
        """Hash of what replies depend on: the model, where it is, and how it is asked."""
        keys = ("model", "base_url", "system", "temperature", "max_tokens", "thinking")
        found = {k: asdict(self)[k] for k in keys} | {"weights": self._weights(self.folder)}
        if self.guard is not None:
            found["guard"] = self._weights(self.guard)
        return sha256_json(found)

    @property
    def screen(self) -> "Endpoint | None":
        """The guard as an endpoint of its own: greedy, in this process."""
        if self.guard is None:
            return None
        return Endpoint(
            IN_PROCESS, folder=self.guard, max_tokens=self.max_tokens, thinking=self.thinking
        )

    def _weights(self, folder: str | None) -> dict | None:
        """Hashes of small files, and sizes of weights: enough to see another checkpoint."""
        if folder is None:
            return None
        files = sorted(p for p in Path(folder).glob("*") if p.is_file())
        if not files:
            raise PhasescopeError(f"{folder}: no checkpoint folder (endpoint {self.model!r})")
        small = {p.name: sha256_file(p) for p in files if p.suffix == ".json"}
        large = {p.name: p.stat().st_size for p in files if p.suffix != ".json"}
        return small | large

    def api_key(self) -> str | None:
        """What the provider is given as key: None (it reads its own variable), or a word for a
        local server that asks for none. Raises PhasescopeError naming the variable that is unset.
        """
        variable = self.key_variable
        if variable is None or os.environ.get(variable):
            return None
        if urlsplit(self.base_url or "").hostname in _NEEDS_NO_KEY:
            return _NO_KEY
        raise PhasescopeError(
            f"endpoint {self.model!r}: the environment variable {variable} is not set"
        )

    @property
    def key_variable(self) -> str | None:
        """Environment variable that holds the key; None where none is needed."""
        provider, *rest = self.model.split("/")
        if provider == "openrouter":
            return "OPENROUTER_API_KEY"
        if provider == "openai-api":
            return re.sub(r"-", "_", rest[0]).upper() + "_API_KEY"
        return None
