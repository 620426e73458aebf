"""Chat messages to models wherever they run, and their replies."""

from phasescope.chat.asking import Each, Reply, ask
from phasescope.chat.endpoint import IN_PROCESS, Endpoint

__all__ = ["IN_PROCESS", "Each", "Endpoint", "Reply", "ask"]
