"""What a judge's answer says: a number, a choice, or an order. Else `Unparsable`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trainer.ops.parsing import LONGEST, Unparsable, tag_fields
from trainer.ops.text import NUMBER, last_boxed
from trainer.plugin import Frozen

_THOUGHT = "</think>"


class Reading(Frozen):
    """How the verdict stands in a judge's answer. What a judge thinks before `</think>` does not
    count, and thoughts without an end are no answer."""

    by: Literal["tag", "json", "boxed", "words", "number"] = "tag"
    r"""`tag`: inside the last `<key>...</key>`. `json`: under `key` of the last JSON object.
    `boxed`: inside the last `\boxed{}`. `words`: the answer begins with one of `words`.
    `number`: a number of the answer, see `take`. What is found by the first three may be a number
    or one of `words`."""
    key: str = "score"
    words: dict[str, float] = Field(default_factory=dict)
    """What words are worth, as they are: `{"yes": 1, "no": 0}`. Case does not matter."""
    low: float = 0.0
    high: float = 10.0
    """Numbers outside of `low` to `high` are no verdict."""
    rescale: bool = True
    """Numbers become (number - low) / (high - low), in [0, 1]."""
    take: Literal["last", "first"] = "last"
    """Which number of the answer counts. Of `by: number`."""
    clamp: bool = False
    """Numbers outside of `low` to `high` count as the nearer end."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not self.low < self.high or not math.isfinite(self.high - self.low):
            raise ValueError(f"low: {self.low:g} must be below high: {self.high:g}, both finite")
        if self.by == "words" and not self.words:
            raise ValueError("words: needed by `by: words`, for instance {yes: 1, no: 0}")
        if bad := [word for word, value in self.words.items() if not math.isfinite(value)]:
            raise ValueError(f"words.{bad[0]}: must be a finite number")
        return self

    def number(self, answer: str) -> float:
        """Raises Unparsable if there is no verdict, or one out of range."""
        text = spoken(answer)
        words = {word.casefold(): value for word, value in self.words.items()}
        if self.by == "words":
            return words[_first(text, words)]
        found = self._found(text)
        said = str(found).strip().strip("*_.\"'").casefold()
        if said in words:
            return words[said]
        value = self._as_number(found)
        if self.clamp:
            value = min(max(value, self.low), self.high)
        if not self.low <= value <= self.high:
            raise Unparsable(f"a verdict of {value:g}, not {self.low:g} to {self.high:g}")
        return (value - self.low) / (self.high - self.low) if self.rescale else value

    def _found(self, text: str) -> Any:
        match self.by:
            case "tag":
                fields = [field.text for field in tag_fields(text, self.key) if field.text]
                found = fields[-1] if fields else None
            case "json":
                found = last_object(text).get(self.key)
            case "boxed":
                found = last_boxed(text)
            case _:
                found = text
        if found is None or isinstance(found, bool | list | dict):
            raise Unparsable(f"no verdict ({self.by} {self.key!r}) in {text[-60:]!r}")
        return found

    def _as_number(self, found: Any) -> float:
        if isinstance(found, int | float):
            return float(found) if abs(found) < 1e300 else math.inf
        said = [match.group().replace(",", "") for match in NUMBER.finditer(str(found))]
        if not said or (len(said) > 1 and self.by != "number"):
            many = "several numbers" if said else "no number"
            raise Unparsable(f"{many} in the verdict {str(found)[-60:]!r}")
        above, fraction, below = said[0 if self.take == "first" else -1].partition("/")
        if not fraction or float(below) == self.high:  # "7/10" where 10 is the most
            return float(above)
        return float(above) / float(below) if float(below) else math.inf


def spoken(answer: str) -> str:
    """The end of the answer that counts, without the judge's thoughts."""
    thought, closed, text = answer.rpartition(_THOUGHT)
    if not closed and "<think>" in answer:
        raise Unparsable("the judge's thoughts have no end; raise server.max_tokens")
    text = text[-LONGEST:].strip()
    if not text:
        raise Unparsable("the judge said nothing" + (" after its thoughts" if thought else ""))
    return text


def choice(answer: str, choices: Sequence[str], tag: str) -> str:
    """The one of `choices` that stands in the last `<tag>`. Raises Unparsable."""
    fields = [field.text for field in tag_fields(spoken(answer), tag) if field.text]
    if not fields:
        raise Unparsable(f"no <{tag}>...</{tag}> in {answer[-60:]!r}")
    said = fields[-1].strip("*_.()[]\"' ").casefold()
    found = next((one for one in choices if one.casefold() == said), None)
    if found is None:
        raise Unparsable(f"{fields[-1][:40]!r} is none of {', '.join(choices)}")
    return found


def order(answer: str, count: int, tag: str) -> list[int]:
    """Places 0 to `count` - 1, best first, from `3 > 1 > 2` or `[3, 1, 2]` in the last `<tag>`:
    every number from 1 to `count` once. Raises Unparsable."""
    fields = [field.text for field in tag_fields(spoken(answer), tag) if field.text]
    if not fields:
        raise Unparsable(f"no <{tag}>...</{tag}> in {answer[-60:]!r}")
    said = [int(number) for number in re.findall(r"[0-9]{1,9}", fields[-1])]
    if sorted(said) != list(range(1, count + 1)):
        raise Unparsable(f"{fields[-1][:60]!r} does not name 1 to {count} once each")
    return [number - 1 for number in said]


def marks(answer: str, tag: str) -> list[float]:
    """What stands in `<tag1>`, `<tag2>`, ... up to the first that is missing, in [0, 1]; NaN where
    it is no number. Of several of a name the last counts. Raises Unparsable as `spoken`."""
    text, found = spoken(answer), []
    while fields := tag_fields(text, f"{tag}{len(found) + 1}"):
        try:
            found.append(min(max(float(fields[-1].text), 0.0), 1.0))
        except ValueError:
            found.append(math.nan)
    return found


def last_object(text: str) -> Mapping[str, Any]:
    """The last JSON object of a text that is not inside another one. Raises Unparsable."""
    decoder, found, at = json.JSONDecoder(), None, 0
    for _ in range(1000):  # each try may read to the end
        at = text.find("{", at)
        if at < 0:
            break
        try:
            found, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
    if not isinstance(found, dict):
        raise Unparsable(f"no JSON object in {text[-60:]!r}")
    return found


def _first(text: str, words: Mapping[str, float]) -> str:
    start = re.match(r"[\W_]*([^\W_]+)", text)
    word = start.group(1).casefold() if start else ""
    if word not in words:
        raise Unparsable(f"the answer begins with {text[:40]!r}, none of {', '.join(words)}")
    return word
