"""Recipe files: strict YAML 1.2, `extends`, `scales`, `stages`, dotted overrides.

Order, weakest first: the files named by `extends`, the file's body, its section for the scale, the
section of the stage, the command line. A file therefore always wins over what it extends.
Mappings merge key by key, lists are replaced. A plug-in that names another `type` replaces the
one below it whole, so no setting of the old one is left behind.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from trainer.claim import Claim, Stated
from trainer.config import Recipe
from trainer.errors import ConfigError
from trainer.ops.yaml12 import Dumper, Section, parse
from trainer.plugin import Plugin, find

B = TypeVar("B", bound=BaseModel)

DIRECTIVES = frozenset({"claim", "extends", "scale", "scales", "stages"})
"""Keys of a file that are not fields of a `Recipe`."""


def load_recipe(
    path: str | Path,
    *,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    stage: str | None = None,
) -> list[Recipe]:
    """One `Recipe` per stage, in order.

    `overrides`: `loss.clip_high=0.28`, `modifiers.0.coefficient=0.1`, `scale=full`,
    `stages=[rl]`, `stages.sft.steps=50`; a value is YAML. `stage` keeps only that stage.
    Raises ConfigError with one line per problem: file and line, key, value, what to do.
    """
    path = Path(path)
    changes = [_override(text) for text in overrides]
    chosen = scale or next((v for k, v in reversed(changes) if k == ["scale"]), None)
    files = _files(path, ())
    tree = _layers(files, _scale(path, files, chosen))
    tree.setdefault("stages", Section({str(tree.get("stage", "rl")): None}))
    local = []
    for keys, value in changes:
        if keys[0] == "stages":
            tree = _put(tree, keys, value)
        elif keys != ["scale"]:
            local.append((keys, value))
    stages = tree.pop("stages")
    if stage is not None:
        stages = _pick(stages, [stage], str(path))
    recipes = []
    for name, section in stages.items():
        section = _section(section, f"{path}: stages.{name}")
        own = merge(_typed(tree), _implied(section))
        if "model" in section:
            own.setdefault("continues", False)
        for keys, value in local:
            own = _put(_typed(own), keys, _implied_at(keys, value))
        own["stage"] = name
        recipes.append(_validated(Recipe, str(path), _typed(own)))
    return recipes


def load_claim(path: str | Path) -> Claim | None:
    """The `claim` section of a file; None if it has none (one in a file it extends is not its)."""
    _, tree = _files(Path(path), ())[-1]
    if "claim" not in tree:
        return None
    section = Section({"claim": tree["claim"]}, where=tree.where)
    return _validated(Stated, str(path), section).claim


def dump_recipe(recipe: Recipe) -> str:
    """Every setting written out; `load_recipe` of it gives an equal recipe."""
    return yaml.dump(
        recipe.model_dump(mode="json"),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, without `extends` or scales; ConfigError if it is not YAML."""
    return parse(_read(path, ()), str(path))


def load_plugin(base: type[B], text: str, source: str) -> B:
    """A plug-in, or a section such as `scoring`, from YAML text: `text/exact`,
    `{type: vision/iou}`, `{deadline: 60}`. Errors name `source`."""
    value = parse(text, source, lines=False)
    return _validated(base, source, Section({"type": value}) if isinstance(value, str) else value)


def merge(base: Section, over: Section) -> Section:
    """`over` on top of `base`; neither is changed."""
    merged = Section(base, where=base.where | over.where)
    for key, value in over.items():
        merged[key] = _merge_value(base[key], value, key) if key in base else value
    return merged


def _merge_value(base: Any, over: Any, key: object) -> Any:
    if key == "stages":
        return _merge_stages(base, over)
    if isinstance(base, str) and isinstance(over, Section) and "type" not in over:
        base = Section({"type": base})
    if not isinstance(base, Section):
        return over
    kind = (
        over if isinstance(over, str) else over.get("type") if isinstance(over, Section) else None
    )
    if kind is not None and base.get("type", kind) != kind:
        return over
    if isinstance(over, str):
        return base if base.get("type") == over else over
    return merge(base, over) if isinstance(over, Section) else over


def _merge_stages(base: Any, over: Any) -> Any:
    base, named = _stages(base, "stages"), isinstance(over, Section)
    if not named:
        return _pick(base, over, "stages")
    merged = Section(base, where=base.where | over.where)
    for name, section in over.items():
        merged[name] = merge(_section(base.get(name), name), _section(section, name))
    return merged


def _stages(value: Any, source: str) -> Section:
    """`{sft: {...}, rl: {}}` and `[sft, rl]` as a mapping."""
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return Section(dict.fromkeys(value))
    if not isinstance(value, Section) or not value:
        raise ConfigError(
            f"{source}: `stages` must be names such as [sft, rl] or a mapping "
            f"{{sft: {{...}}, rl: {{}}}}, got {value!r}"
        )
    return value


def _pick(stages: Any, chosen: Any, source: str) -> Section:
    stages, chosen = _stages(stages, source), [chosen] if isinstance(chosen, str) else chosen
    for name in chosen:
        if name not in stages:
            raise ConfigError(f"{source}: no stage {name!r}; {_nearest(str(name), stages)}")
    return Section({name: stages[name] for name in chosen}, where=stages.where)


def _section(value: Any, source: str) -> Section:
    if value is None:
        return Section()
    if not isinstance(value, Section):
        raise ConfigError(f"{source}: must be a mapping of settings, got {value!r}")
    return value


def _files(path: Path, above: tuple[Path, ...]) -> list[tuple[Path, Section]]:
    """The file and all it extends, weakest first."""
    if path.resolve() in above:
        chain = " -> ".join(str(p) for p in (*above, path.resolve()))
        raise ConfigError(f"{path}: `extends` goes round in a circle: {chain}")
    tree = parse(_read(path, above), str(path))
    if not isinstance(tree, Section):
        raise ConfigError(f"{path}: a recipe is a mapping of settings, got {tree!r}")
    bases = tree.pop("extends", None) or []
    found = []
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: `extends` takes paths, got {base!r}")
        found += _files(path.parent / base, (*above, path.resolve()))
    return [*found, (path, tree)]


def _read(path: Path, above: tuple[Path, ...]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        by = f" (named by `extends` in {above[-1]})" if above else ""
        raise ConfigError(f"no such file: {path}{by}; {_nearest(path.name, near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error


def _scale(path: Path, files: list[tuple[Path, Section]], chosen: Any) -> str:
    named = [tree["scale"] for _, tree in files if "scale" in tree]
    scale = chosen or (named[-1] if named else "tiny")
    known: dict[str, None] = {}
    for source, tree in files:
        known |= dict.fromkeys(_section(tree.get("scales"), f"{source}: scales"))
    if scale not in known and (known or chosen or named):
        has = "no `scales` section" if not known else f"no scale {scale!r}"
        raise ConfigError(f"{path}: {has}; {_nearest(str(scale), known)}")
    return scale


def _layers(files: list[tuple[Path, Section]], scale: str) -> Section:
    tree = Section()
    for path, body in files:
        sections = _section(body.pop("scales", None), f"{path}: scales")
        body.pop("scale", None)
        body.pop("claim", None)
        tree = _merged(tree, body, path)
        own = _section(sections.get(scale), f"{path}: scales.{scale}")
        if bad := DIRECTIVES.intersection(own) - {"stages"}:
            raise ConfigError(
                f"{path}: scales.{scale}: `{min(bad)}` stands at the top of a file only"
            )
        tree = _merged(tree, own, path)
    return tree


def _merged(tree: Section, over: Section, path: Path) -> Section:
    merged = merge(_typed(tree), _implied(over))
    if "stages" in over:
        merged["stages"] = _stages(merged["stages"], str(path))
    return merged


def _override(text: str) -> tuple[list[str], Any]:
    keys, equals, value = text.partition("=")
    if not equals or not all(keys.split(".")):
        raise ConfigError(f"{text!r}: an override is key=value, for instance loss.clip_high=0.28")
    return keys.split("."), parse(value, f"override {keys}", lines=False)


def _put(tree: Any, keys: Sequence[str], value: Any, path: str = "") -> Any:
    """A copy of `tree` with `value` merged in at the dotted place."""
    key, rest = keys[0], keys[1:]
    here = f"{path}.{key}" if path else key
    if isinstance(tree, list):
        if not key.isdigit() or int(key) >= len(tree):
            raise ConfigError(
                f"override {here}: {path} is a list of {len(tree)}; use an index below that, "
                f"or give the whole list: {path}=[...]"
            )
        items = dict(enumerate(tree))
        items[int(key)] = _placed(items, int(key), rest, value, here)
        return list(items.values())
    if not isinstance(tree, Section):
        if key.isdigit():
            raise ConfigError(f"override {here}: {path} is no list here; give {path}=[...]")
        tree = Section({"type": tree} if isinstance(tree, str) else {})
    where = tree.where | {key: "command line"}
    return Section(tree | {key: _placed(tree, key, rest, value, here)}, where=where)


def _placed(nodes: dict[Any, Any], key: Any, rest: Sequence[str], value: Any, here: str) -> Any:
    if rest:
        return _put(nodes.get(key), rest, value, here)
    return _merge_value(nodes[key], value, key) if key in nodes else value


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configuration classes inside an annotation: `tuple[Filter, ...]`, `Lora | None`, ..."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models(inner)


def _typed(tree: Section) -> Section:
    """`tree` with the default `type` written into plug-in sections that leave it out."""
    return _fill(Recipe, tree, defaults=True)


def _implied(tree: Section) -> Section:
    """`tree` with the types that its keys give away, so that it replaces what is of another."""
    return _fill(Recipe, tree, defaults=False)


def _implied_at(keys: Sequence[str], value: Any) -> Any:
    """The same for what an override puts at a dotted place."""
    if not isinstance(value, Section):
        return value
    for key in reversed(keys):
        value = Section({key: value}, where=value.where)
    value = _implied(value)
    for key in keys:
        value = value[key]
    return value


def _fill(cls: type[BaseModel], tree: Section, *, defaults: bool) -> Section:
    filled = Section(tree, where=tree.where)
    for name, field in cls.model_fields.items():
        value, inner = tree.get(name), next(models(field.annotation), None)
        if inner is None or not isinstance(value, (Section, list)):
            continue
        if isinstance(value, list):
            filled[name] = [_fill_one(inner, v, None, defaults) for v in value]
        else:
            default = field.get_default(call_default_factory=True) if defaults else None
            filled[name] = _fill_one(inner, value, default, defaults)
    return filled


def _fill_one(cls: type[BaseModel], value: Any, default: Any, defaults: bool) -> Any:
    if not isinstance(value, Section):
        return value
    if issubclass(cls, Plugin):
        name = cls.implied_type(value)
        if name is None and isinstance(default, (str, Plugin)):
            name = default if isinstance(default, str) else default.name()
        if "type" not in value and name is not None:
            value = Section({"type": name} | value, where=value.where)
        cls = _class_of(cls, value)
    return _fill(cls, value, defaults=defaults)


def _class_of(base: type[BaseModel], value: Any) -> type[BaseModel]:
    """The plug-in class that `value` names; `base` where it names none that exists."""
    name = (
        value if isinstance(value, str) else value.get("type") if isinstance(value, dict) else None
    )
    if not issubclass(base, Plugin) or not isinstance(name, str):
        return base
    try:
        return find(base, name)
    except ValueError:
        return base


def _validated(cls: type[B], source: str, tree: Any) -> B:
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = dict.fromkeys(_explain(cls, source, tree, problem) for problem in problems)
        raise ConfigError("\n".join(lines)) from None


def _explain(root: type[BaseModel], source: str, tree: Any, error: Any) -> str:
    """One problem as `file:line: key = value: what to do`."""
    node: Any = tree
    cls = _class_of(root, tree)
    where, keys, loc = source, [], error["loc"]
    owner = cls
    for depth, key in enumerate(loc):
        present = _has(node, key)
        if not present and (depth < len(loc) - 1 or not isinstance(node, Section)):
            continue  # pydantic's label for a member of a union, not a key
        keys.append(str(key))
        if isinstance(node, Section):
            where, owner = node.where.get(key, where), cls
            field = cls.model_fields.get(key)
            cls = next(models(field.annotation), cls) if field else cls
        node = node[key] if present else None
        cls = _class_of(cls, node)
    place = ".".join(keys)
    if error["type"] == "extra_forbidden":
        kind = owner.name() if issubclass(owner, Plugin) else owner.__name__.lower()
        known = [*owner.model_fields, *(sorted(DIRECTIVES) if owner is Recipe else ())]
        deeper = [
            f"{name}.{keys[-1]}"
            for name, field in owner.model_fields.items()
            if any(keys[-1] in inner.model_fields for inner in models(field.annotation))
        ]
        hint = f"did you mean {deeper[0]!r}?" if deeper else _nearest(keys[-1], known)
        return f"{where}: {place}: unknown key of {kind}; {hint}"
    if error["type"] == "missing":
        return f"{where}: {place}: missing; add it"
    message = str(error["ctx"]["error"]) if "error" in error.get("ctx", {}) else error["msg"]
    shown = f"{place} = {node!r}: " if keys and not isinstance(node, dict | list) else ""
    shown = shown or (f"{place}: " if keys else "")
    return f"{where}: {shown}{message.replace('Input should be', 'should be', 1)}"


def _has(node: Any, key: Any) -> bool:
    if isinstance(node, list):
        return isinstance(key, int) and key < len(node)
    return isinstance(node, Section) and key in node


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(map(str, known))}" if known else "there is none here"
