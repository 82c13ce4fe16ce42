"""The program in a reply."""

from __future__ import annotations

import re
from collections.abc import Collection

from trainer.ops.parsing import Unparsable
from trainer.ops.text import tag_content

_OPEN = re.compile(r"^[ \t]{0,3}(```+|~~~+)[ \t]*([\w+#.-]*)[^\n`]*$")


def fenced(text: str) -> list[tuple[str, str]]:
    """(language in lower case, content) of every closed fence, in order. Linear in the text."""
    found: list[tuple[str, str]] = []
    mark, language, lines = "", "", []
    for line in text.split("\n"):
        if mark:
            bare = line.strip()
            if bare.startswith(mark) and not bare.strip(mark[0]):
                found.append((language, "\n".join(lines)))
                mark = ""
            else:
                lines.append(line)
        elif opened := _OPEN.match(line):
            mark, language, lines = opened[1], opened[2].lower(), []
    return found


def program(
    reply: str, languages: Collection[str], *, require: bool = True, tag: str = "answer"
) -> str:
    """The last fence of one of `languages` (or of none) inside of the last `<tag>`, or else of the
    whole reply. Without a fence: `Unparsable`, or what the tag or reply holds where not
    required."""
    inside = tag_content(reply, tag)
    for text in (inside, reply):
        for language, code in reversed(fenced(text or "")):
            if language in languages or not language:
                return code
    if require:
        raise Unparsable(f"no closed code fence of {' or '.join(sorted(languages))}")
    code = (inside if inside is not None else reply).strip()
    if not code:
        raise Unparsable("the reply is empty")
    return code
