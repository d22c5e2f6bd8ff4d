"""Characters that the alphabet lacks, spelled with those that it has: quotes, dashes, ligatures, accents."""

import unicodedata
from dataclasses import dataclass, field

from hwdiff.data.tokenizer import unknown_characters

REPLACED = {
    **dict.fromkeys("“”„‟«»″", '"'),
    **dict.fromkeys("‘’‚‛‹›′´`", "'"),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    **dict(zip("…×ıßæÆœŒ", ("...", "x", "i", "ss", "ae", "AE", "oe", "OE"), strict=True)),
    **dict(zip("ﬀﬁﬂﬃﬄĳĲ", ("ff", "fi", "fl", "ffi", "ffl", "ij", "IJ"), strict=True)),
}
# Letters that Unicode does not take apart, though they are others with a stroke through them.
_CROSSED = dict(
    zip("øØłŁđĐ", ("o\u0338", "O\u0338", "l\u0337", "L\u0337", "d\u0335", "D\u0335"), strict=True)
)
# The combining marks that can be drawn; see `diffusion.accents`.
ABOVE = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c"
BELOW = "\u0326\u0327\u0328"
THROUGH = "\u0335\u0337\u0338"
MARKS = ABOVE + BELOW + THROUGH


@dataclass
class Spelling:
    """How a text is written.

    text: in characters of the alphabet, but for those of `unknown`. White space of any kind is a space.
    shown: as it reads, letter by letter as long as `text`: with the accented letters, where `text` has the
        bare ones.
    accents: (number in `text`, combining mark) of each accent to be drawn.
    accented: the accented letters, each once.
    replaced: {character: what is written for it}, such as {"“": '"'}.
    unknown: (number in the given text, character) of what cannot be written.
    """

    text: str = ""
    shown: str = ""
    accents: list[tuple[int, str]] = field(default_factory=list)
    accented: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    unknown: list[tuple[int, str]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it that can be written."""
        return len(self.text) == self.text.count(" ") + len(self.unknown)


def spell(text: str) -> Spelling:
    """How a text is written. Combining marks count as a part of the letter before them."""
    spelling, number = Spelling(), 0
    while number < len(text):
        start, number = number, number + 1
        while number < len(text) and unicodedata.combining(text[number]):
            number += 1
        _add(spelling, unicodedata.normalize("NFC", text[start:number]), start)
    return spelling


def _add(spelling, character, place):
    """Spell one character, with the combining marks that it did not take in."""
    plain = " " if character.isspace() else REPLACED.get(character, character)
    letter, *marks = _CROSSED.get(character) or unicodedata.normalize("NFD", character)
    if marks and not unknown_characters(letter) and all(mark in MARKS for mark in marks):
        spelling.accents += [(len(spelling.text), mark) for mark in marks]
        if character not in spelling.accented:
            spelling.accented.append(character)
        spelling.text += letter
        spelling.shown += character if len(character) == 1 else letter
        return
    if unknown_characters(plain):
        spelling.unknown.append((place, character))
        # One token stands for it, whatever it is made of.
        plain = plain[0]
    elif plain != character and plain != " ":
        spelling.replaced[character] = plain
    spelling.text += plain
    spelling.shown += plain
