"""JSON schema of a recipe file, so that editors complete and check recipes.

It checks names and value types. It does not ask for completeness, because a file may leave to
`extends` or to a scale what it does not say itself; `cohort check` looks at the whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.json_schema import models_json_schema

from trainer.claim import Claim
from trainer.config import Recipe
from trainer.plugin import Plugin, find, names
from trainer.yaml import models

REF = "#/$defs/{model}"
EXTERNAL = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""`my_pkg.my_module:MyClass`."""


def recipe_schema() -> dict[str, Any]:
    """Draft 2020-12 schema with every plug-in that ships, each with its fields and docstrings."""
    classes: dict[type[BaseModel], None] = {}
    _reach(Recipe, classes)
    _reach(Claim, classes)
    shipped = {cls: _shipped(cls, classes) for cls in classes if _is_base(cls)}
    refs, top = models_json_schema([(cls, "validation") for cls in classes], ref_template=REF)
    definitions = top["$defs"]

    def definition_of(cls: type[BaseModel]) -> dict[str, Any]:
        return definitions[_key(refs[cls, "validation"])]

    for cls in classes:
        node = definition_of(cls)
        node.pop("required", None)
        for name in _prepared(cls):
            _allow_single(node["properties"][name])
    for base, group in shipped.items():
        for cls in group:
            node = definition_of(cls)
            kind = {"const": cls.name(), "description": _first_line(cls)}
            node["properties"] = {"type": kind} | node.get("properties", {})
            node["required"] = ["type"]
        fields = {name for cls in group for name in cls.model_fields}
        definitions[_key(refs[base, "validation"])] = {
            "description": _first_line(base),
            "anyOf": [
                *({"const": cls.name(), "description": _first_line(cls)} for cls in group),
                *(refs[cls, "validation"] for cls in group),
                {
                    "description": "Settings on top of the `type` given by `extends` or default.",
                    "type": "object",
                    "not": {"required": ["type"]},
                    "propertyNames": {"enum": sorted(fields)},
                },
                {
                    "description": "A class of your own.",
                    "type": "object",
                    "properties": {"type": {"type": "string", "pattern": EXTERNAL}},
                    "required": ["type"],
                },
                {"description": "A class of your own.", "type": "string", "pattern": EXTERNAL},
            ],
        }
    return _file(definition_of(Recipe)) | {"$defs": definitions}


def _file(recipe: dict[str, Any]) -> dict[str, Any]:
    """`recipe` (changed in place to the fields of a section) as the schema of a whole file."""
    section = {"anyOf": [{"$ref": REF.format(model="Recipe")}, {"type": "null"}]}
    stages = {
        "description": "Stages in order, each with the settings that differ: {sft: {...}, rl: {}}.",
        "anyOf": [
            {"type": "array", "items": {"type": "string"}, "minItems": 1},
            {"type": "object", "additionalProperties": section, "minProperties": 1},
        ],
    }
    recipe["properties"]["stages"] = stages
    path = {"type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cohort recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "extends": {
                "description": "Files this one builds on, relative to it; the later wins.",
                "anyOf": [path, {"type": "array", "items": path}],
            },
            "scale": {"type": "string", "description": "Default scale; `tiny` if not given."},
            "scales": {
                "description": "Settings by scale: {tiny: {...}, full: {...}}.",
                "type": "object",
                "additionalProperties": section,
            },
            "claim": {"$ref": REF.format(model="Claim")},
            **recipe["properties"],
        },
    }


def _reach(cls: type[BaseModel], found: dict[type[BaseModel], None]) -> None:
    """Adds `cls` and every configuration class below it, all plug-ins of a family included."""
    if cls in found:
        return
    found[cls] = None
    if issubclass(cls, Plugin) and "family" in vars(cls):
        for name in names(cls):
            _reach(find(cls, name), found)
    for field in cls.model_fields.values():
        for inner in models(field.annotation):
            _reach(inner, found)


def _is_base(cls: type[BaseModel]) -> bool:
    """True for a family's contract, or a narrower one beside it (`RowLoss`)."""
    return issubclass(cls, Plugin) and cls.__module__ == f"{cls.family}.base"


def _shipped(base: type[BaseModel], classes: Iterable[type[BaseModel]]) -> list[type[Plugin]]:
    """The plug-ins that fit a field of type `base`."""
    return [
        cls
        for cls in classes
        if issubclass(cls, Plugin) and issubclass(cls, base) and not _is_base(cls)
    ]


def _prepared(cls: type[BaseModel]) -> Iterator[str]:
    """Fields whose value is changed before pydantic looks at its type."""
    for validator in cls.__pydantic_decorators__.field_validators.values():
        if validator.info.mode == "before":
            yield from validator.info.fields
    for name, field in cls.model_fields.items():
        if any(isinstance(mark, BeforeValidator) for mark in field.metadata):
            yield name


def _allow_single(node: dict[str, Any]) -> None:
    """A list that pydantic makes of a single value: `monitors: console`."""
    if node.get("type") == "array":
        listed = {key: node.pop(key) for key in ("type", "items", "minItems") if key in node}
        node["anyOf"] = [listed, listed["items"]]


def _key(ref: Any) -> str:
    return ref["$ref"].rpartition("/")[2]


def _first_line(cls: type) -> str:
    """Of the class's own docstring, else of its file's."""
    text = vars(cls).get("__doc__") or sys.modules[cls.__module__].__doc__ or ""
    return text.strip().partition("\n")[0]
