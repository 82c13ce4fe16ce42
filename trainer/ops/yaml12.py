"""YAML 1.2's core scalars on top of PyYAML, which speaks 1.1: there `no` is False, `1e-5` a string,
`010` is 8, `1:30` is 90, and the second of two equal keys wins silently."""

from __future__ import annotations

import re
from typing import Any

import yaml

from trainer.errors import ConfigError


class Section(dict[Any, Any]):
    """A mapping that remembers where each of its keys was written."""

    def __init__(self, items: Any = (), *, where: dict[Any, str] | None = None):
        super().__init__(items)
        self.where = dict(where or {})
        """{key: "file:line"}."""


CORE = (
    ("null", re.compile(r"~|null|Null|NULL|"), "~nN\0"),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
        "-+.0123456789",
    ),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, first in CORE:
        whole = re.compile(rf"(?:{pattern.pattern})\Z")
        for letter in first:
            table.setdefault(letter.replace("\0", ""), []).append(
                (f"tag:yaml.org,2002:{name}", whole)
            )
    return table


class Loader(yaml.SafeLoader):
    """Refuses duplicate keys; every mapping is a `Section`."""

    yaml_implicit_resolvers = _resolvers()
    source = ""
    lines = True

    def _place(self, mark: yaml.Mark) -> str:
        return f"{self.source}:{mark.line + 1}" if self.lines else self.source

    def _mapping(self, node: yaml.MappingNode) -> Section:
        section = Section()
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            place = self._place(key_node.start_mark)
            if isinstance(key, dict | list):
                raise ConfigError(f"{place}: a key must be a plain word, got {key!r}")
            if key in section:
                raise ConfigError(
                    f"{place}: key {key!r} is given twice, first at {section.where[key]}; keep one"
                )
            section.where[key] = place
            section[key] = self.construct_object(value_node, deep=True)
        return section

    def _int(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return (
            int(text, 8) if text[:2] == "0o" else int(text, 16) if text[:2] == "0x" else int(text)
        )

    def _float(self, node: yaml.ScalarNode) -> float:
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


Loader.yaml_constructors = yaml.SafeLoader.yaml_constructors | {
    "tag:yaml.org,2002:map": Loader._mapping,
    "tag:yaml.org,2002:int": Loader._int,
    "tag:yaml.org,2002:float": Loader._float,
}


class Dumper(yaml.SafeDumper):
    """Quotes what `Loader` would not read as a string."""

    yaml_implicit_resolvers = _resolvers()

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML folds these line breaks into a space unless they are escaped.
        style = '"' if set(data) & {"\x85", "\u2028", "\u2029"} else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


_REPRESENTERS: dict[Any, Any] = yaml.SafeDumper.yaml_representers | {str: Dumper.represent_str}
Dumper.yaml_representers = _REPRESENTERS


def parse(text: str, source: str, *, lines: bool = True) -> Any:
    """The value of a YAML document; ConfigError names `source` and, if `lines`, the line."""
    loader = Loader(text)
    loader.source, loader.lines = source, lines
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = loader._place(mark) if mark else source
        raise ConfigError(f"{place}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {error}") from None
    finally:
        loader.dispose()


def flow(value: Any) -> str:
    """`value` on one line, as `parse` reads it back: `{clip_high: 0.2}`, `[]`, `'no'`."""
    listed = yaml.dump(
        [_plain(value)], Dumper=Dumper, default_flow_style=True, sort_keys=False, width=float("inf")
    )
    return listed.strip()[1:-1]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
