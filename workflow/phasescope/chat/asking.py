"""Asking an endpoint many questions, through Inspect AI's model providers.

inspect_ai takes seconds to import: only where something is asked.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from phasescope.chat.endpoint import Endpoint
from phasescope.errors import PhasescopeError


@dataclass(frozen=True)
class Reply:
    """What an endpoint replied.

    stop: why it ended, in Inspect's words ('stop', 'max_tokens', 'content_filter', …); error:
    what failed where nothing was replied, never with anything of the question or a reply;
    outage: whether it may be answered another time.
    """

    text: str = ""
    thinking: str | None = None
    stop: str = "stop"
    tokens: int | None = None
    error: str | None = None
    outage: bool = False


# HTTP: a fault of the one question; all else (a key, an address, load) may be mended
_THIS_QUESTION = (400, 413, 422)

Each = Callable[[int, Reply], None]


def ask(
    endpoint: Endpoint, questions: Sequence[list[dict]], each: Each, *, temperature=None
) -> None:
    """Ask all questions (lists of chat messages), several at a time.

    `each` is called with the number of a question and its reply as soon as it comes, so that what
    was answered can be kept whatever happens later. Failed attempts are repeated with growing
    waits; what fails for good is a Reply with an error. Raises PhasescopeError for a missing key
    or a checkpoint that cannot be loaded.
    """
    if questions:
        asyncio.run(_ask(endpoint, questions, each, temperature))


def _model(endpoint: Endpoint, temperature: float | None):
    from inspect_ai.model import GenerateConfig, get_model

    body = {}
    if endpoint.thinking is not None:
        body["chat_template_kwargs"] = {"enable_thinking": endpoint.thinking}
    config = GenerateConfig(
        temperature=endpoint.temperature if temperature is None else temperature,
        max_tokens=endpoint.max_tokens,
        max_connections=endpoint.max_connections,
        max_retries=endpoint.retries,
        attempt_timeout=round(max(1, endpoint.timeout_seconds)),
        system_message=endpoint.system,
        extra_body=body or None,
    )
    if endpoint.in_process:
        from phasescope.chat import in_process

        name = f"{in_process.PROVIDER}/{endpoint.folder}"
        return get_model(name, config=config, memoize=False)
    return get_model(
        endpoint.model,
        config=config,
        base_url=endpoint.base_url,
        api_key=endpoint.api_key(),
        memoize=False,
        # one retry loop: Inspect's, not the client library's below it
        **({"max_retries": 0} if endpoint.model.startswith("openai-api/") else {}),
    )


async def _ask(endpoint, questions, each: Each, temperature) -> None:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
    from tenacity import wait_exponential_jitter

    kinds = {
        "system": ChatMessageSystem,
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
    }
    model = _model(endpoint, temperature)
    first = endpoint.backoff_seconds
    model.api.retry_wait = lambda: wait_exponential_jitter(multiplier=first, max=600, jitter=first)

    async def one(number: int) -> None:
        messages = [kinds[m["role"]](content=m["content"]) for m in questions[number]]
        try:
            found = reply_of(await model.generate(messages))
        except PhasescopeError:
            raise
        except Exception as error:  # whatever providers and their clients raise
            if endpoint.in_process:
                raise
            found = _failed(error)
        each(number, found)

    async with model:
        # the first alone: where nothing can be reached at all, one set of retries tells
        await one(0)
        async with asyncio.TaskGroup() as group:
            for number in range(1, len(questions)):
                group.create_task(one(number))


def reply_of(output) -> Reply:
    """A reply of Inspect's, thinking apart from text."""
    if output.error or not output.choices:
        return Reply(error="the provider reported an error", stop=str(output.stop_reason))
    content, thinking = output.message.content, None
    if not isinstance(content, str):
        thinking = "\n".join(c.reasoning for c in content if c.type == "reasoning") or None
        content = "".join(c.text for c in content if c.type == "text")
    tokens = output.usage.output_tokens if output.usage else None
    return Reply(content, thinking, str(output.stop_reason), tokens)


def _failed(error: BaseException) -> Reply:
    """A failure by its kind alone: messages of providers may quote what was asked."""
    while (cause := error.__cause__ or getattr(error, "last_attempt", None)) is not None:
        if not isinstance(cause, BaseException):
            with suppress(Exception):
                cause = cause.exception()
        if not isinstance(cause, BaseException):
            break
        error = cause
    status = getattr(error, "status_code", None)
    said = type(error).__name__ + (f" (HTTP {status})" if status else "")
    return Reply(error=said, stop="unknown", outage=status not in _THIS_QUESTION)
