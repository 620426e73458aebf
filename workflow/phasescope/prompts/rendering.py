"""Prompts through a model's own chat template."""

from phasescope.tables.provenance import sha256_json


def _tokens(tokenizer, messages: list[dict], **options) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return tokenizer.encode(text, add_special_tokens=False)


def render(tokenizer, text: str, *, thinking: bool) -> list[int]:
    """Token ids of a user's message in the chat template, up to where the answer begins.

    Without thinking, templates of thinking models put an empty thinking block there.
    """
    messages = [{"role": "user", "content": text}]
    return _tokens(tokenizer, messages, add_generation_prompt=True, enable_thinking=thinking)


def render_answer(tokenizer, text: str, answer: str) -> tuple[list[int], int]:
    """Token ids of a prompt without thinking, followed by an answer as the template writes it, and
    the index where the answer begins."""
    prompt = render(tokenizer, text, thinking=False)
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    whole = _tokens(tokenizer, messages, enable_thinking=False)
    # templates may leave the empty thinking block out of a finished turn
    shared = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt)
    )
    return prompt + whole[shared:], len(prompt)


def template_suffix(tokenizer, text: str, *, thinking: bool) -> int:
    """How many tokens the chat template puts behind the user's message.

    What the renderings of a message and of the same words backwards share at their ends; the
    message must not begin and end with the same word.
    """
    backwards = " ".join(reversed(text.split()))
    pair = [render(tokenizer, t, thinking=thinking)[::-1] for t in (text, backwards)]
    shared = zip(*pair, strict=False)
    return next((i for i, (a, b) in enumerate(shared) if a != b), min(map(len, pair)))


def rendered_hash(sequences: list[list[int]]) -> str:
    """Hash of rendered prompts, for provenance."""
    return sha256_json(sequences)
