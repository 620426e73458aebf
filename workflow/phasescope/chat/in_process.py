"""mlx-lm in this process as one of Inspect AI's model providers: whole batches, greedy or drawn."""

import asyncio
from functools import lru_cache
from pathlib import Path

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)

from phasescope.chat.endpoint import Endpoint
from phasescope.errors import PhasescopeError

PROVIDER = "phasescope-mlx"
_SEED = 0


@lru_cache(maxsize=1)
def _loaded(folder: str):
    from mlx_lm import load

    try:
        return load(folder, {"trust_remote_code": False})
    except Exception as error:  # whatever mlx-lm and transformers raise for what they cannot read
        said = (str(error).splitlines() or [""])[0]
        raise PhasescopeError(
            f"{folder}: mlx-lm cannot load it: {type(error).__name__}: {said}"
        ) from None


def rendered(endpoint: Endpoint, messages: list[dict]) -> list[int]:
    """Token ids of chat messages in the endpoint's own template, system prompt before them."""
    system = [{"role": "system", "content": endpoint.system}] if endpoint.system else []
    thinking = endpoint.thinking is not False
    return _tokens(_loaded(endpoint.folder)[1], [*system, *messages], thinking)


def _tokens(tokenizer, messages: list[dict], thinking: bool) -> list[int]:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    return tokenizer.encode(text, add_special_tokens=False)


class Mlx(ModelAPI):
    """A checkpoint folder, loaded once a process. Questions that wait run as one batch."""

    def __init__(self, model_name, base_url=None, api_key=None, config=None, **_):
        """`model_name` is the folder."""
        super().__init__(Path(model_name).name, config=config or GenerateConfig())
        self._model, self._tokenizer = _loaded(model_name)
        self._waiting: list[tuple[list[int], GenerateConfig, asyncio.Future]] = []

    def max_connections(self) -> int:
        """Questions in one batch, where the configuration does not say."""
        return 8

    async def generate(self, input, tools, tool_choice, config: GenerateConfig) -> ModelOutput:
        """One reply; see `ModelAPI.generate`. Tools are not supported."""
        body = (config.extra_body or {}).get("chat_template_kwargs", {})
        messages = [{"role": m.role, "content": m.text} for m in input]
        tokens = _tokens(self._tokenizer, messages, body.get("enable_thinking", True))
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, config, future))
        if len(self._waiting) == 1:
            await asyncio.sleep(0.01)  # the others of this round line up
            self._run()
        return self._output(tokens, await future, config)

    def _run(self) -> None:
        """Answer all that wait; they come from one call and share its settings."""
        import mlx.core as mx
        from mlx_lm import batch_generate
        from mlx_lm.sample_utils import make_sampler

        waiting, self._waiting = self._waiting, []
        prompts, config = [w[0] for w in waiting], waiting[0][1]
        mx.random.seed(_SEED)
        try:
            found = batch_generate(
                self._model,
                self._tokenizer,
                prompts,
                max_tokens=config.max_tokens,
                return_token_ids=True,
                completion_batch_size=len(prompts),
                prefill_batch_size=len(prompts),
                sampler=make_sampler(temp=config.temperature or 0.0),
            ).token_ids
        except Exception as error:
            for *_, future in waiting:
                future.set_exception(error)
            return
        for (*_, future), tokens in zip(waiting, found, strict=True):
            future.set_result(list(tokens))

    def _output(self, prompt: list[int], tokens: list[int], config: GenerateConfig) -> ModelOutput:
        """The reply in Inspect's form, thinking apart, as mlx_lm.server gives it."""
        tokenizer, thinking, own = self._tokenizer, None, tokens
        if tokenizer.has_thinking and self._opened(prompt + tokens[:1]):
            end = tokenizer.find_think_end(tokens)
            marks = len(tokenizer.think_end_tokens)
            thinking = tokenizer.decode(tokens if end < 0 else tokens[:end])
            own = [] if end < 0 else tokens[end + marks :]
        content = tokenizer.decode(own)
        if thinking is not None:
            content = [ContentReasoning(reasoning=thinking), ContentText(text=content)]
        stop = "max_tokens" if len(tokens) >= config.max_tokens else "stop"
        counts = len(prompt), len(tokens)
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(
                    message=ChatMessageAssistant(
                        content=content, source="generate", model=self.model_name
                    ),
                    stop_reason=stop,
                )
            ],
            usage=ModelUsage(
                input_tokens=counts[0], output_tokens=counts[1], total_tokens=sum(counts)
            ),
        )

    def _opened(self, prompt: list[int]) -> bool:
        """Whether the prompt leaves the thinking open."""
        tokenizer = self._tokenizer
        start = tokenizer.rfind_think_start(prompt)
        return start >= 0 and tokenizer.find_think_end(prompt[start:]) < 0


@modelapi(name=PROVIDER)
def _provider() -> type[ModelAPI]:
    """How Inspect finds it by name."""
    return Mlx
