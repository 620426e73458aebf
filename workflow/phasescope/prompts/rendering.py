"""Prompts through a model's own chat template."""

from phasescope.tables.provenance import sha256_json


def render(tokenizer, text: str, *, thinking: bool) -> list[int]:
    """Token ids of a user's message in the chat template, up to where the answer begins.

    Without thinking, templates of thinking models put an empty thinking block there.
    """
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        enable_thinking=thinking,
        tokenize=False,
    )
    return tokenizer.encode(rendered, add_special_tokens=False)


def rendered_hash(sequences: list[list[int]]) -> str:
    """Hash of rendered prompts, for provenance."""
    return sha256_json(sequences)
