"""Writes clip_ids.json: the token ids that the reference implementation gives to difficult texts.

The reference is `SimpleTokenizer` of open_clip_torch 3.3.0, itself OpenAI's code, with ftfy 6.3.1 and regex. Run it
with the file `open_clip/tokenizer.py` of that distribution, which needs no other part of it:

    python tests/models/make_clip_ids.py path/to/open_clip/tokenizer.py
"""

import importlib.util
import json
import sys
from pathlib import Path

TEXTS = [
    "a photo of a forest",
    "Größe der Häuser in Österreich, ÄÖÜ ß ẞ",
    "ΟΔΟΣ ΣΊΣΥΦΟΣ: η λίμνη",
    "卫星图像中的港口",
    "صورة جوية لميناء",
    "उपग्रह छवि में नदी ½ ५",
    "港の衛星写真 ﾊﾝｶｸ ＡＢＣ",
    "Спутниковый снимок",
    "👩🏽‍🌾 👨‍👩‍👧‍👦 🏳️‍🌈 harbour ⚓️",
    "café",
    "cafe\u0301",
    "J\u030cungle",
    "İstanbul",
    "K Å",
    "fish &amp; chips &copy; 2020 &#39;",
    "&amp;amp;lt;b&amp;amp;gt;",
    "<b>it&rsquo;s</b>",
    "  extra \t spaces\u00a0\u3000here\n\n",
    "con\x00trol\x07 \x1b[31mred\x1b[0m \x0bv \x85 \x92s \ufeffmark",
    "The farmer’s “field”",
    "don't WON'T I'LL we've I'd they're '\u017f",
    "ﬁre ﬂow ﬅ ĳs ŉ Ǆ",
    "<|endoftext|> <|startoftext|> x",
    "1990s, 12345 m², Ⅷ 30°C €5",
    "!!!'s ... 're",
    "half of a character: \ud83d, and a whole one \ud83d\ude00",
    "a_b-c/d naïve façade",
    "hello\u200bworld\u200d",
    "\u2028line\u2029paragraph",
    "a" * 60,
    "forest " * 200,
    "!" * 300,
    "   ",
    "",
]


def main() -> None:
    """Read the reference by its path, write the fixture beside this file."""
    spec = importlib.util.spec_from_file_location("reference", sys.argv[1])
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    tokenizer = reference.SimpleTokenizer()
    rows = tokenizer(TEXTS).tolist()
    ids = [row[: row.index(tokenizer.eot_token_id) + 1] for row in rows]
    content = [{"text": text, "ids": found} for text, found in zip(TEXTS, ids, strict=True)]
    lines = ",\n".join(json.dumps(entry) for entry in content)
    Path(__file__).with_name("clip_ids.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
