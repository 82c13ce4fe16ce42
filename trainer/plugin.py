"""One file, one plug-in: `type: grpo` in a recipe is the class defined in `<family>/grpo.py`.

A plug-in is a frozen pydantic model. Its fields are the hyper-parameters, its methods are the
formula. There is no registry to edit: the file name is the name. Outside this repository the
name is `my_pkg.my_module:MyClass`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    model_serializer,
    model_validator,
)

P = TypeVar("P", bound="Plugin")


class Frozen(BaseModel):
    """Base of every configuration node: immutable, unknown keys refused, fields documented."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


class Plugin(Frozen):
    """Base of the families (`Reward`, `Advantage`, ...). A family base sets `family`."""

    family: ClassVar[str]
    """Package that holds the family's plug-ins, for instance `trainer.rewards`."""

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Any:
        """Turns `"grpo"` and `{"type": "grpo", ...}` into an instance of the right class."""
        if isinstance(data, cls):
            return data
        if isinstance(data, str):
            data = {"type": data}
        if isinstance(data, dict) and "type" in data:
            fields = {key: value for key, value in data.items() if key != "type"}
            return find(cls, data["type"]).model_validate(fields)
        if "family" in vars(cls):
            implied = cls.implied_type(data) if isinstance(data, dict) else None
            if implied is not None:
                return find(cls, implied).model_validate(data)
            raise ValueError(f"a {cls.__name__} needs a type, one of: {', '.join(names(cls))}")
        return handler(data)

    @classmethod
    def implied_type(cls, data: Mapping[str, Any]) -> str | None:
        """The type of a mapping without `type`, where a family's keys give it away."""
        return None

    @model_serializer(mode="plain")
    def _dump(self) -> dict[str, Any]:
        return {"type": self.name()} | {f: getattr(self, f) for f in type(self).model_fields}

    @classmethod
    def name(cls) -> str:
        """The name a recipe uses: `math/boxed`, or `pkg.module:Class` outside the family."""
        inside, _, path = cls.__module__.partition(f"{cls.family}.")
        return (
            f"{cls.__module__}:{cls.__qualname__}" if inside or not path else path.replace(".", "/")
        )


def names(base: type[Plugin]) -> list[str]:
    """Names of the plug-ins that ship with a family, sorted: `["gated", "math/boxed", ...]`."""
    package = importlib.import_module(base.family)
    prefix = f"{base.family}."
    return sorted(
        module.name.removeprefix(prefix).replace(".", "/")
        for module in pkgutil.walk_packages(package.__path__, prefix)
        if not module.ispkg and module.name != f"{base.family}.base"
    )


def find(base: type[P], name: str) -> type[P]:
    """The plug-in class called `name` in the family of `base`.

    Raises ValueError with the nearest name if there is none, if `pkg.mod:Class` cannot be
    imported, or if the class is of another family.
    """
    if not isinstance(name, str):
        raise ValueError(f"type of a {base.__name__} must be a name, got {name!r}")
    if ":" in name:
        return _external(base, name)
    known = names(base)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {base.__name__} {name!r}; {hint}")
    module = importlib.import_module(f"{base.family}.{name.replace('/', '.')}")
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, base) and c.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ValueError(f"{module.__name__} must define one {base.__name__}, has {len(classes)}")
    return classes[0]


def _external(base: type[P], name: str) -> type[P]:
    cls = load_object(name)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ValueError(f"{name!r} is not a {base.__name__}")
    return cls


def load_object(name: str) -> Any:
    """Imports `pkg.module:attribute`; ValueError says which half is wrong."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"cannot import {module_name!r} ({error}); run from the folder that holds it, or "
            "install it"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        public = [n for n in vars(module) if not n.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{module_name!r} has no {attribute!r}{hint}") from None
