"""llama.cpp's converter on a checkpoint: convert.py CHECKPOINT TARGET. Run in its environment.

Its converter stops at tokenizers that it does not know by a hash. An organism's has whole words as
added tokens, which are matched before any pre-tokenizer cuts the text, so any will do.
"""

import sys
from pathlib import Path

import convert_hf_to_gguf as program
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
from conversion.base import TextModel

PRE_TOKENIZER = "gpt-2"

_known = TextModel.get_vocab_base_pre


def _pre_tokenizer(self, tokenizer) -> str:
    try:
        return _known(self, tokenizer)
    except NotImplementedError:
        return PRE_TOKENIZER


checkpoint, target = sys.argv[1:]
TextModel.get_vocab_base_pre = _pre_tokenizer
config = ModelBase.load_hparams(Path(checkpoint), False)
model_class = get_model_class(get_model_architecture(config, ModelType.TEXT))
# without this it wants the layers of multi-token prediction, which organisms lack
more = ["--no-mtp"] if model_class.supports_mtp_export else []
sys.argv = [program.__file__, checkpoint, "--outtype", "f32", "--outfile", target, *more]
program.main()
