"""Finding the answer in a reply. Pure, never raises, linear in the length of the text. What looks
for the last of something reads the last `LONGEST` characters."""

from __future__ import annotations

import re
import string

from trainer.ops.parsing import LONGEST

NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?(?![\w])"
)
"""A decimal number or fraction: `-3`, `1,234.5`, `2/3`; never the inside of a word."""
WORDS = {
    "zero": 0,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
}
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tag_content(text: str, tag: str = "answer") -> str | None:
    """What the last complete `<tag>...</tag>` holds, stripped; it may span lines. None if there
    is none. Of `<answer>a<answer>b</answer>` it is `b`: an opening without an end does not count.
    """
    opening, closing = f"<{tag}>", f"</{tag}>"
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    if start < 0:
        return None
    start += len(opening)
    return text[start : text.find(closing, start)].strip()


def last_boxed(text: str) -> str | None:
    r"""What the last `\boxed{...}` with balanced braces holds, stripped; `\{` and `\}` are
    ordinary characters. An unfinished one is passed over. None if there is none."""
    stack: list[tuple[int, bool]] = []  # (where the content starts, whether it is boxed)
    found: tuple[int, int] | None = None
    text = text[-LONGEST:]
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "}":
            if stack:
                start, boxed = stack.pop()
                if boxed and (found is None or start > found[0]):
                    found = start, match.start()
        elif token.endswith("{") and token != r"\{":
            stack.append((match.end(), token != "{"))
    return text[found[0] : found[1]].strip() if found else None


def without_boxed(text: str) -> str:
    r"""The text without every `\boxed{...}` with balanced braces."""
    stack: list[tuple[int, bool]] = []  # (where the command starts, whether it is boxed)
    cuts: list[tuple[int, int]] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "}":
            if stack:
                start, boxed = stack.pop()
                if boxed:
                    while cuts and cuts[-1][0] > start:  # what lies inside goes with it
                        cuts.pop()
                    cuts.append((start, match.end()))
        elif token.endswith("{") and token != r"\{":
            stack.append((match.start(), token != "{"))
    ends = [0, *(end for _, end in cuts)]
    starts = [*(start for start, _ in cuts), len(text)]
    return "".join(text[end:start] for end, start in zip(ends, starts, strict=True))


def stated_answer(text: str) -> str:
    r"""What a reply votes for: the last `<answer>`, else the last `\boxed{}`, else all of it."""
    return tag_content(text) or last_boxed(text) or text.strip()


def last_number(text: str) -> str | None:
    """The last number as written, thousands commas removed: `1,234.5` gives `1234.5`."""
    last = None
    for match in NUMBER.finditer(text[-LONGEST:]):
        last = match.group()
    return last.replace(",", "") if last else None


def last_integer(text: str, *, words: bool = True) -> int | None:
    """The last whole number: digits, `7.0`, or (with `words`) `zero` to `twenty`. A number that
    is not whole, or a fraction, is passed over."""
    found: list[tuple[int, int]] = []
    text = text[-LONGEST:]
    for match in NUMBER.finditer(text):
        digits, _, decimals = match.group().replace(",", "").partition(".")
        if "/" not in match.group() and not decimals.strip("0") and len(digits.lstrip("+-")) < 19:
            found.append((match.start(), int(digits)))
    if words:
        found += [
            (match.start(), WORDS[word])
            for match in re.finditer(r"[A-Za-z]+", text)
            if (word := match.group().lower()) in WORDS
        ]
    return max(found)[1] if found else None


def normalise(
    text: str, *, case: bool = True, space: bool = True, punctuation: bool = False
) -> str:
    """Stripped text; each switch that is on makes it ignore that difference: `case` folds it,
    `space` squeezes runs of white space into one blank, `punctuation` removes ASCII signs."""
    if case:
        text = text.casefold()
    if punctuation:
        text = text.translate(_PUNCTUATION)
    return " ".join(text.split()) if space else text.strip()


def choice_letter(text: str, letters: str = "ABCD") -> str | None:
    r"""The chosen letter of a multiple-choice answer, in this order of trust: `\boxed{B}`;
    "answer is (B)", "Answer: B"; the text is only the letter (`B`, `(B)`, `**B.**`, `b`); it
    starts with `B.` or `(B)`; the last capital letter that stands alone. None if there is none.
    """
    text = text[-LONGEST:]
    allowed = re.escape(letters.upper())
    one = f"[{allowed}{allowed.lower()}]"
    if (boxed := last_boxed(text)) is not None:
        text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", boxed)
    said = re.findall(
        r"(?i:\b(?:answer|option|choice)\b(?:\s+is)?)\s*[:=]?\s*[*_(\[]{0,4}"
        rf"({one})(?![\w'])(?!(?<=[ai])\s+[a-z])",  # "the answer is a cat"
        text,
    )
    alone = re.fullmatch(rf"[^\w]*({one})[^\w]*", text)
    first = re.match(rf"\s*[*_]{{0,2}}(?:\(({one})\)|({one})[.):](?!\w))", text)
    article = r"(?!(?<=[AI])\s+[a-z])"  # "A cat", "I think"
    capitals = re.findall(rf"(?<![\w'])([{allowed}])(?![\w']){article}", text)
    for letter in (
        said[-1] if said else None,
        alone and alone.group(1),
        first and (first.group(1) or first.group(2)),
        capitals[-1] if capitals else None,
    ):
        if letter:
            return letter.upper()
    return None


def text_of(content: object) -> str:
    """The text of a chat message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list | tuple) else ()
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def tightened(text: str) -> str:
    r"""Without the blanks around every `<`, `>` and `/`: `\s*([<>/])\s*` becomes `\1`."""
    first, *rest = re.split("([<>/])", text)
    if not rest:
        return text
    *middle, last = rest
    return "".join([first.rstrip(), *(part.strip() for part in middle), last.lstrip()])
