"""The judge that a study configures: an endpoint that is shown answers."""

from collections.abc import Callable, Sequence

from phasescope.chat import Endpoint, Reply, ask

_RETRY_TEMPERATURE = 0.7  # a greedy reply that was malformed would come again


class EndpointJudge:
    """Asks an endpoint; see `judged.Judge`."""

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self.name, self.identity = endpoint.name, endpoint.identity

    def ask(
        self,
        questions: Sequence[list[dict]],
        attempt: int,
        each: Callable[[int, str | None], None],
    ) -> None:
        """See `judged.Judge.ask`. A reply that was cut or blocked is none."""

        def read(number: int, reply: Reply) -> None:
            whole = reply.error is None and reply.stop == "stop"
            each(number, reply.text if whole else None)

        ask(self._endpoint, questions, read, temperature=_RETRY_TEMPERATURE if attempt else None)
