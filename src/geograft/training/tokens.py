"""The mini teacher's tokeniser: a small lower-case BPE whose pieces are learnt as well as its words.

With a thousand tokens every word of the captions becomes one token, and the pieces that a new word would break into
would never be trained. So in training a share of the merges is left out at random (BPE-dropout, Provilkov,
Emelianenko, Voita, ACL 2020): "woods" is seen as `woods`, as `wood s` and as `wo od s`, and the unseen "woodland"
then means something.
"""

import itertools
import json
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

PAD, START, UNKNOWN, END = "<pad>", "<start>", "<unk>", "<end>"
SPECIAL = (PAD, START, UNKNOWN, END)
"""Their ids are 0 to 3. END must not be 2: transformers' CLIP treats that id as a mark of its oldest checkpoints."""

_NEVER = 1 << 30


def learn_tokenizer(captions: Iterable[str], *, vocabulary: int = 1000, context: int = 32) -> PreTrainedTokenizerFast:
    """A tokeniser of the captions' words and pieces; the same captions give the same tokeniser.

    Args:
        captions: texts, one each.
        vocabulary: the most tokens it may have, special ones included.
        context: the most tokens of a text, special ones included.

    Returns:
        A transformers tokeniser that pads, cuts and adds START and END, and reloads with `AutoTokenizer`.
    """
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(captions, trainer=_trainer(vocabulary))
    core.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, SPECIAL.index(START)), (END, SPECIAL.index(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=context,
        pad_token=PAD,
        bos_token=START,
        unk_token=UNKNOWN,
        eos_token=END,
    )


def tokenise(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of texts in whole words, (N, L) int64 each, L the longest text's length."""
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    return torch.as_tensor(batch["input_ids"]), torch.as_tensor(batch["attention_mask"])


class BrokenWords:
    """Tokenises texts with merges left out at random, from a seed.

    Every word's ways to break are drawn once (the library's own dropout cannot be seeded), a text's are chosen among
    them each time it is read.

    Args:
        tokenizer: of `learn_tokenizer`.
        broken: the share of merges to leave out, in [0, 1).
        seed: of the draw of every word's ways.
        ways: how many ways to break a word are kept.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, *, broken: float = 0.1, seed: int = 0, ways: int = 16
    ) -> None:
        self._core = tokenizer.backend_tokenizer
        model = json.loads(self._core.to_str())["model"]
        self._ids: dict[str, int] = model["vocab"]
        self._ranks = {tuple(merge): rank for rank, merge in enumerate(model["merges"])}
        self._longest = int(tokenizer.model_max_length)
        self._broken, self._seed, self._count = broken, seed, ways
        self._ways: dict[str, list[list[int]]] = {}
        self._words: dict[str, list[str]] = {}

    def __call__(self, texts: Sequence[str], draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, (N, L) int64 each, L the longest text's length."""
        rows = [self._row(text, draw) for text in texts]
        length = max(len(row) for row in rows)
        ids = torch.tensor([row + [SPECIAL.index(PAD)] * (length - len(row)) for row in rows])
        return ids, (ids != SPECIAL.index(PAD)).long()

    def _row(self, text: str, draw: np.random.Generator) -> list[int]:
        """The ids of a text, START and END included."""
        if text not in self._words:
            normal = self._core.normalizer.normalize_str(text)
            self._words[text] = [word for word, _ in self._core.pre_tokenizer.pre_tokenize_str(normal)]
        words = self._words[text]
        chosen = draw.integers(self._count, size=len(words))
        inner = [piece for word, way in zip(words, chosen, strict=True) for piece in self._ways_of(word)[way]]
        return [SPECIAL.index(START), *inner[: self._longest - 2], SPECIAL.index(END)]

    def _ways_of(self, word: str) -> list[list[int]]:
        """The ways to break a word, drawn from the seed and the word alone."""
        if word not in self._ways:
            draw = np.random.default_rng([self._seed, *word.encode()])
            self._ways[word] = [self._break(word, draw) for _ in range(self._count)]
        return self._ways[word]

    def _break(self, word: str, draw: np.random.Generator) -> list[int]:
        """The pieces of a word when each merge is skipped with the set probability."""
        pieces = list(word)
        while True:
            pairs = [(self._ranks.get(pair, _NEVER), at) for at, pair in enumerate(itertools.pairwise(pieces))]
            kept = [pair for pair in pairs if pair[0] < _NEVER and draw.random() >= self._broken]
            if not kept:
                return [self._ids.get(piece, SPECIAL.index(UNKNOWN)) for piece in pieces]
            _, at = min(kept)
            pieces[at : at + 2] = ["".join(pieces[at : at + 2])]


def _trainer(vocabulary: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
