"""A word-level tokenizer in Hugging Face's format: one word, one token, spaces between."""

import json
from pathlib import Path

PAD, UNK, BOS, EOS, USER, ASSISTANT = SPECIAL_TOKENS = (
    "<pad>",
    "<unk>",
    "<bos>",
    "<eos>",
    "<user>",
    "<assistant>",
)

# `enable_thinking` and other arguments of larger models' templates are ignored.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<user> {{ message.content }}"
    "{% elif message.role == 'assistant' %}<assistant> {{ message.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('roles: user, assistant; not ' + message.role) }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def save(words: tuple[str, ...], folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json for `words` (special tokens first) into `folder`.

    transformers opens every qwen3_5 checkpoint with its own byte-level class, whatever the files
    say, and that class keeps added tokens. So each word is an added token with the blank before it:
    text goes in and comes out as words with blanks between, a decoded answer beginning with one.
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel
    from tokenizers.models import BPE

    backend = Tokenizer(BPE(vocab={}, merges=[]))
    backend.decoder = ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    plain = words[len(SPECIAL_TOKENS) :]
    backend.add_tokens([AddedToken(f" {word}", special=False, normalized=False) for word in plain])
    config = {
        "tokenizer_class": "TokenizersBackend",
        "pad_token": PAD,
        "unk_token": UNK,
        "bos_token": BOS,
        "eos_token": EOS,
        "additional_special_tokens": [USER, ASSISTANT],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 64,
        "chat_template": CHAT_TEMPLATE,
    }
    folder = Path(folder)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
