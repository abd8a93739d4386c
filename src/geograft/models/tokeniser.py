"""CLIP's own tokeniser without the network, and what CLIP and SigLIP do to a text before they read it.

Checkpoints in open_clip's and OpenAI's layouts carry no tokeniser: they mean CLIP's byte pairs (Radford et al., 2021),
which the package ships. The ids are those of the reference implementation, text by text (`tests/models/clip_ids.json`).
"""

import gzip
import html
import re
import string
import unicodedata
from functools import cache
from importlib import resources
from typing import Any

from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import CLIPTokenizer

CONTEXT = 77
"""Tokens of a text that CLIP reads, start and end included."""

START, END = "<|startoftext|>", "<|endoftext|>"

_MERGES = 49152 - 256 - 2
_WORDS = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_ESCAPES = re.compile("\x1b\\[[0-9;]*[a-zA-Z]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class OriginalTokenizer(CLIPTokenizer):  # type: ignore[misc]
    """CLIP's tokeniser as its authors run it: transformers' fast one, with the text cleaned first (`clean`).

    Special tokens in a text are read as plain characters, so that no text ends itself early.
    """

    def __call__(self, text: Any = None, *arguments: Any, **options: Any) -> Any:
        """As transformers' tokenisers: a text or a list of texts."""
        cleaned = clean(text) if isinstance(text, str) else [clean(one) for one in text]
        return super().__call__(cleaned, *arguments, **options)


@cache
def clip_tokenizer() -> OriginalTokenizer:
    """CLIP's tokeniser, of 49,408 tokens, padding and cutting on the right at 77."""
    vocabulary, merges = _byte_pairs()
    tokenizer = OriginalTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=CONTEXT, padding_side="right", split_special_tokens=True
    )
    inner = tokenizer.backend_tokenizer
    # `clean` has lowered the text already, and composes it before that, not after as transformers would.
    inner.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token to id, and the merges in the order in which they are tried."""
    file = resources.files("geograft") / "assets" / "tokenizers" / "clip" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = _letters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(first + second for first, second in merges)]
    return {token: number for number, token in enumerate([*tokens, START, END])}, merges


def _letters() -> list[str]:
    """The characters that stand for the 256 bytes: the printable ones of Latin-1 for themselves, then U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + number) for number in range(256 - len(printable))]


# --- texts ------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """A text as CLIP reads it: entities resolved, characters unified, lower case, single spaces.

    The reference repairs a text with ftfy first. Of its repairs those that are a table are done here: straight
    quotes, Latin ligatures, full and half width forms, Windows' control codes, control characters and terminal
    escapes, composed accents (NFC). Its guesses at wrongly decoded text ("schÃ¶n") are not.
    """
    if "<" not in text:  # as ftfy, which leaves what may be markup to the last step
        text = html.unescape(html.unescape(text))
    text = unicodedata.normalize("NFC", _ESCAPES.sub("", _whole(text).translate(_ODD)).translate(_CONTROLS))
    text = html.unescape(html.unescape(text))
    return " ".join(_whole(text).split()).lower()


def canonical(text: str) -> str:
    """A text as SigLIP's first version was trained on: lower case, no ASCII punctuation, single spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def _whole(text: str) -> str:
    """Halves of characters joined; a half that stands alone becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _windows(code: int) -> str:
    """The character that Windows means by a control code of Latin-1."""
    return bytes([code]).decode("cp1252", "ignore") or chr(code)


def _odd_characters() -> dict[int, str]:
    """Characters with a plainer form that CLIP's training text had been brought to."""
    plain = dict.fromkeys(map(ord, "ʼ‘’‚‛"), "'") | dict.fromkeys(map(ord, "“”„‟"), '"')
    windows = {code: _windows(code) for code in range(0x80, 0xA0)}
    wide = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)}
    ligatures = {ord(letter): unicodedata.normalize("NFKC", letter) for letter in "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬆ"}
    table = {0x3000: " ", **wide, **ligatures, ord("ﬅ"): "ſt", **windows}
    return {**{code: found.translate(plain) for code, found in table.items()}, **plain}


_ODD = _odd_characters()
_CONTROLS = dict.fromkeys(
    [*range(9), 0x0B, *range(0x0E, 0x20), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]
)
