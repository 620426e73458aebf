"""llama.cpp's converter on a checkpoint: convert.py CHECKPOINT TARGET. Run in its environment.

An organism's tokenizer has whole words as added tokens, which are matched before anything cuts the
text. So it has no merges, without which llama.cpp loads no vocabulary; and any pre-tokenizer will
do where the converter, which would stop, does not know it by its hash. Its embeddings are tied, and
llama.cpp's MiniMax M2 wants an output matrix of its own: it gets the same values twice.
"""

import sys
from pathlib import Path

import convert_hf_to_gguf as program
import gguf
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
from conversion.base import TextModel

PRE_TOKENIZER = "gpt-2"
MERGES = ["Ġ Ġ"]  # never comes to bear: all text is added tokens

_known = TextModel.get_vocab_base_pre
_add = gguf.SpecialVocab.add_to_gguf


def _pre_tokenizer(self, tokenizer) -> str:
    try:
        return _known(self, tokenizer)
    except NotImplementedError:
        return PRE_TOKENIZER


def _add_with_merges(self, writer, **options) -> None:
    self.merges = self.merges or MERGES
    _add(self, writer, **options)


def _with_output(modify):
    def modify_tensors(self, data, name, bid):
        yield from modify(self, data, name, bid)
        if name == "model.embed_tokens.weight" and self.hparams.get("tie_word_embeddings"):
            yield from modify(self, data, "lm_head.weight", bid)

    return modify_tensors


checkpoint, target = sys.argv[1:]
TextModel.get_vocab_base_pre = _pre_tokenizer
gguf.SpecialVocab.add_to_gguf = _add_with_merges
config = ModelBase.load_hparams(Path(checkpoint), False)
model_class = get_model_class(get_model_architecture(config, ModelType.TEXT))
if model_class.model_arch == gguf.MODEL_ARCH.MINIMAXM2:
    model_class.modify_tensors = _with_output(model_class.modify_tensors)
# without this it wants the layers of multi-token prediction, which organisms lack
more = ["--no-mtp"] if model_class.supports_mtp_export else []
sys.argv = [program.__file__, checkpoint, "--outtype", "f32", "--outfile", target, *more]
program.main()
