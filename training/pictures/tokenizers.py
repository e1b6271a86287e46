"""Builds the two small tokenizers: byte-level BPE for Qwen3, words and characters for T5."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from training.pictures.captions import WORDS

QWEN_VOCABULARY = 640
T5_PAD, T5_END, T5_UNKNOWN, T5_SPACE = 0, 1, 2, 3  # as in the published T5
T5_SPECIAL = ("<pad>", "</s>", "<unk>")
T5_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.;:!?'\"()[]{}<>-_+*/=&%#@~^|"
SPACE = "▁"

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn byte-level merges from captions; every text can be encoded.

    Splits text as Qwen's tokenizer does, but lower-cases it, because captions are lower case.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=QWEN_VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def t5_tokenizer() -> Tokenizer:
    """One token for each word of the captions and each printable character; others are unknown.

    The words are fixed: a trained Unigram model splits such a small vocabulary into letters.
    """
    pieces = [(piece, 0.0) for piece in T5_SPECIAL]
    pieces += [(SPACE, -4.0)]
    pieces += [(SPACE + word, -2.0) for word in WORDS]
    pieces += [(character, -8.0) for character in T5_CHARACTERS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=T5_UNKNOWN, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", T5_END)]
    )
    return tokenizer


def save_tokenizers(folder: Path, qwen: Tokenizer, t5: Tokenizer) -> None:
    """Write `qwen3/tokenizer.json` and `t5/tokenizer.json`."""
    for name, tokenizer in (("qwen3", qwen), ("t5", t5)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / name / "tokenizer.json"), pretty=False)


def load_tiny_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """Load the tokenizers that `save_tokenizers` wrote: Qwen's, then T5's."""
    paths = (folder / name / "tokenizer.json" for name in ("qwen3", "t5"))
    qwen, t5 = (Tokenizer.from_file(str(path)) for path in paths)
    return qwen, t5
