"""Licences of photos: many spellings, one name each, and which of them allow any use."""

import re
from functools import lru_cache

FREE_LICENCES = ("cc0", "cc-by", "cc-by-sa", "public-domain", "us-gov", "no-known-copyright")
"""Licences that allow any use, in the words of `licence_name`."""

_WORDS = {
    "attribution": "by",
    "sharealike": "sa",
    "noncommercial": "nc",
    "noderivs": "nd",
    "noderiv": "nd",
    "noderivatives": "nd",
    "zero": "cc0",
    "pdm": "public-domain",
    "pd": "public-domain",
    "publicdomain": "public-domain",
    "creativecommons": "cc",
    "usgov": "us-gov",
}
_NOISE = frozenset({
    "https", "http", "www", "org", "com", "licenses", "license", "licence", "licensed", "deed", "legalcode",
    "international", "generic", "unported", "universal", "mark", "dedication", "work", "works", "the", "under",
    "and", "a", "on", "en", "self", "template",
})  # fmt: skip
_REFUSING = frozenset({"nc", "nd", "not", "reserved", "except", "only"})
"""Words that take back what a free licence beside them gives."""
_TERMS = frozenset({"by", "nc", "nd", "sa"})
_PHRASES = (
    (re.compile(r"(some|no)[\s-]+rights[\s-]+reserved"), ""),  # what Creative Commons prints beside its own licences
    (re.compile(r"share[\s_-]+alike"), "sharealike"),
    (re.compile(r"non[\s_-]+commercial"), "noncommercial"),
    (re.compile(r"no[\s_-]+deriv"), "noderiv"),
    (re.compile(r"creative[\s_-]+commons"), "creativecommons"),
    (re.compile(r"public[\s_-]+domain"), "publicdomain"),
    (re.compile(r"(united states|\bu\.?s\.?)[\s-]+gov\w*"), "usgov"),
    (re.compile(r"no[\s_-]+known[\s_-]+copyright([\s_-]+restrictions?)?"), "no-known-copyright"),
)
_CODE = re.compile(r"\b(cc[\s_-]*by|creativecommons\.org/licenses/by)(?![a-z])")
"""A licence's own code, which names it whatever stands around, such as the photographer."""
_CHOICE = re.compile(r"\||\bor\b")


@lru_cache(maxsize=2**16)
def licence_names(text: str) -> tuple[str, ...]:
    """The licences that a text offers to choose from, each in one spelling (see `licence_name`).

    `{{self|GFDL|cc-by-sa-3.0,2.5,2.0,1.0}}` gives `gfdl` and `cc-by-sa`.
    """
    text = text.lower().strip()
    for pattern, word in _PHRASES:
        text = pattern.sub(word, text)
    return tuple(dict.fromkeys(filter(None, map(_name, _CHOICE.split(text)))))


def licence_name(text: str) -> str:
    """A licence in one spelling: lower case, without version and country, such as `cc-by-sa`.

    Names, short codes, templates and addresses of Creative Commons' licences come out the same: `CC BY-SA 3.0`,
    `CC_BY_SA_4_0`, `Attribution-ShareAlike License` and `https://creativecommons.org/licenses/by-sa/3.0/` are all
    `cc-by-sa`. Where a text offers several, a free one stands for it; a text that names none has a name of its own
    words, which is on no list.
    """
    names = licence_names(text)
    return next((name for name in names if name in FREE_LICENCES), names[0] if names else "")


def _name(text: str) -> str:
    """The name of one licence; `text` has its phrases replaced."""
    words = [_WORDS.get(word, word) for word in re.findall(r"[a-z]+0?", text.replace("no-known-copyright", "nkc"))]
    words = [word for word in dict.fromkeys(words) if word not in _NOISE]
    terms = [word for word in words if word in _TERMS]
    if not _REFUSING & set(words):
        for whole, word in (("us-gov", "us-gov"), ("no-known-copyright", "nkc")):
            if word in words:
                return whole
        for whole in ("cc0", "public-domain"):
            if whole in words:
                return whole
    if _CODE.search(text) and not (_REFUSING - _TERMS) & set(words):
        return "-".join(["cc", *terms])
    parts = [word for word in words if len(word) > 2 and word != "cc"]
    return "-".join(parts or (["cc", *terms] if terms else words))
