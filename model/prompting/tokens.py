"""Loads the two tokenizers of a checkpoint and turns prompts into token ids.

Does not import torch; the API counts tokens with it.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from model.card import Card, shipped_folder
from model.errors import CheckpointError
from model.files.layouts import tokenizer_folders
from model.prompt_grammar import parse_prompt

QWEN_PAD = "<|endoftext|>"
T5_EOS = "</s>"

# Tokenizers treat "</s>" or "<|im_end|>" in a prompt as control tokens; T5 also in full width.
_SPECIAL_TOKEN = re.compile(r"([<＜﹤])(?=[^<>＜＞﹤﹥\s]+[>＞﹥])")
# ASCII words with single spaces between them, and perhaps one before a bracket with a weight.
# Other text may be normalised across words.
_PLAIN_WORDS = re.compile(r"[!-~]{1,40}(?: [!-~]{1,40})* ?")
_WORD = re.compile(r"[!-~]+(?: $)?")
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokens(NamedTuple):
    """A prompt as token ids. `t5_weights` has one weight per T5 id; Qwen ids have no weights.

    An empty prompt has the Qwen ids [pad], which no text produces, and the T5 ids [EOS].
    """

    qwen_ids: list[int]
    t5_ids: list[int]
    t5_weights: list[float]


class Tokenizers(NamedTuple):
    """The two tokenizers of a checkpoint."""

    qwen: Tokenizer
    t5: Tokenizer


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens of a prompt, including the T5 end token; the text path reads `limit` of each kind."""

    qwen: int
    t5: int
    limit: int

    @property
    def is_cut(self) -> bool:
        """Whether the text path leaves tokens out."""
        return max(self.qwen, self.t5) > self.limit


def count_tokens(text: str, tokenizers: Tokenizers, limit: int) -> TokenCount:
    """Count the tokens of a prompt; an empty prompt has only the T5 end token.

    Raises:
        PromptError: as in `tokenize`.
    """
    qwen = t5 = 0
    for segment in parse_prompt(text):
        text_only = _SPECIAL_TOKEN.sub(r"\1 ", segment.text)
        if _PLAIN_WORDS.fullmatch(text_only):
            first, *others = _WORD.findall(text_only)
            # Qwen's tokens begin with the space before a word; T5's mark the start of a word.
            qwen += _word_tokens(first, tokenizers.qwen)
            qwen += sum(_word_tokens(f" {word}", tokenizers.qwen) for word in others)
            t5 += sum(_word_tokens(word, tokenizers.t5) for word in (first, *others))
        else:
            qwen += len(_ids(text_only, tokenizers.qwen))
            t5 += len(_ids(text_only, tokenizers.t5))
    return TokenCount(qwen, t5 + 1, limit)


@lru_cache(maxsize=32_768)
def _word_tokens(word: str, tokenizer: Tokenizer) -> int:
    """The number of tokens of a word, cached because tags share words. No token spans two."""
    return len(_ids(word, tokenizer))


def tokenize(text: str, qwen: Tokenizer, t5: Tokenizer) -> Tokens:
    """Turn a prompt into token ids. Each weighted segment is tokenized on its own.

    Splits text that looks like a control token, so that it does not become one. Accepts
    tokenizers of the transformers library as well and uses the tokenizers that they wrap.

    Raises:
        PromptError: a weight is not a number from -10 to 10, or brackets nest deeper than 20.
    """
    qwen, t5 = (getattr(wrapper, "backend_tokenizer", wrapper) for wrapper in (qwen, t5))
    qwen_ids: list[int] = []
    t5_ids: list[int] = []
    t5_weights: list[float] = []
    for segment in parse_prompt(text):
        text_only = _SPECIAL_TOKEN.sub(r"\1 ", segment.text)
        qwen_ids += _ids(text_only, qwen)
        added = _ids(text_only, t5)
        t5_ids += added
        t5_weights += [segment.weight] * len(added)
    return Tokens(
        qwen_ids or [pad_id(qwen)],
        [*t5_ids, _end_id(t5)],
        [*t5_weights, 1.0],
    )


def is_empty_prompt(tokens: Tokens, qwen: Tokenizer) -> bool:
    """Whether the prompt has no text."""
    return tokens.qwen_ids == [pad_id(qwen)]


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def pad_id(qwen: Tokenizer) -> int:
    """Qwen's padding id, its end-of-text token: the first id after the vocabulary of real text."""
    pad: int | None = qwen.token_to_id(QWEN_PAD)
    return qwen.get_vocab_size(with_added_tokens=False) if pad is None else pad


def _end_id(t5: Tokenizer) -> int:
    end: int | None = t5.token_to_id(T5_EOS)
    if end is None:
        raise ValueError(f"the T5 tokenizer has no end token {T5_EOS}")
    return end


def truncate(tokens: Tokens, max_tokens: int) -> Tokens:
    """Keep at most `max_tokens` ids of each kind and the T5 end token as the last id."""
    if len(tokens.t5_ids) > max_tokens:
        t5_ids = [*tokens.t5_ids[: max_tokens - 1], tokens.t5_ids[-1]]
        t5_weights = [*tokens.t5_weights[: max_tokens - 1], tokens.t5_weights[-1]]
        tokens = tokens._replace(t5_ids=t5_ids, t5_weights=t5_weights)
    return tokens._replace(qwen_ids=tokens.qwen_ids[:max_tokens])


def load_tokenizers(card: Card, checkpoint_dir: Path | None) -> Tokenizers:
    """Load both tokenizers of a card from a checkpoint directory; None is the one in the package.

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    qwen, t5 = tokenizer_folders(card.files, checkpoint_dir or shipped_folder(card))
    return Tokenizers(load_qwen_tokenizer(qwen), load_t5_tokenizer(t5))


def vocabulary_sizes(qwen_folder: Path, t5_folder: Path) -> tuple[int, int]:
    """Load both tokenizers and return their numbers of tokens. Raises as `load_tokenizers`."""
    qwen, t5 = load_qwen_tokenizer(qwen_folder), load_t5_tokenizer(t5_folder)
    return vocabulary_size(qwen), vocabulary_size(t5)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Number of tokens that must have an embedding; control tokens added later need none."""
    size: int = tokenizer.get_vocab_size(with_added_tokens=False)
    return size


def load_qwen_tokenizer(folder: Path) -> Tokenizer:
    """Load Qwen's tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`."""
    if (folder / "tokenizer.json").is_file():
        return _tokenizer_file(folder / "tokenizer.json")
    try:
        bpe = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as exc:
        raise CheckpointError(
            f"{folder} has neither tokenizer.json nor a readable vocab.json and merges.txt: {exc}"
        ) from exc
    tokenizer = Tokenizer(bpe)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def load_t5_tokenizer(folder: Path) -> Tokenizer:
    """Load T5's tokenizer from `tokenizer.json`."""
    tokenizer = _tokenizer_file(folder / "tokenizer.json")
    if tokenizer.token_to_id(T5_EOS) is None:
        raise CheckpointError(f"{folder / 'tokenizer.json'} has no end token {T5_EOS}")
    return tokenizer


def _tokenizer_file(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as exc:
        raise CheckpointError(f"cannot read tokenizer {path}: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
