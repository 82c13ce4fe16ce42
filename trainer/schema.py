"""JSON schema of a recipe file, so that editors complete and check recipes.

It checks names and value types. It does not ask for completeness, because a file may leave to
`extends` or to a scale what it does not say itself; `cohort check` looks at the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from trainer.config import Recipe
from trainer.plugin import Plugin, find, names
from trainer.yaml import models

REF = "#/$defs/{model}"
EXTERNAL = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""`my_pkg.my_module:MyClass`."""


def recipe_schema() -> dict[str, Any]:
    """Draft 2020-12 schema with every plug-in that ships, each with its fields and docstrings."""
    families = sorted(set(_families(Recipe, set())), key=lambda base: base.family)
    shipped = {base: [find(base, name) for name in names(base)] for base in families}
    classes = [Recipe, *families, *(cls for group in shipped.values() for cls in group)]
    refs, top = models_json_schema([(cls, "validation") for cls in classes], ref_template=REF)
    definitions = top["$defs"]
    for definition in definitions.values():
        definition.pop("required", None)

    def definition_of(cls: type[BaseModel]) -> dict[str, Any]:
        return definitions[_key(refs[cls, "validation"])]

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
    listed = recipe["properties"]["monitors"]
    listed["anyOf"] = [{"type": "array", "items": listed.pop("items")}, {"type": "string"}]
    listed.pop("type")
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
            **recipe["properties"],
        },
    }


def _families(cls: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[Plugin]]:
    """Every family reachable from `cls`, through the fields of its plug-ins too."""
    if cls in seen:
        return
    seen.add(cls)
    if issubclass(cls, Plugin) and "family" in vars(cls):
        yield cls
        for name in names(cls):
            yield from _families(find(cls, name), seen)
    for field in cls.model_fields.values():
        for inner in models(field.annotation):
            yield from _families(inner, seen)


def _key(ref: Any) -> str:
    return ref["$ref"].rpartition("/")[2]


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]
