"""Rules of the house, read from the source: layers, plug-ins that stand alone, small files."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "trainer"
FAMILIES = {base.parent.name for base in PACKAGE.glob("*/base.py")}
LAYERS = {
    **dict.fromkeys(("types", "plugin", "errors"), 0),
    **dict.fromkeys(("context", "learning", "renderer", "vllm_adapter"), 2),
    **dict.fromkeys(("judging", "learned", "pictured", "sandboxed", "value_model"), 2),
    **dict.fromkeys(("claim", "config", "yaml"), 4),
    **dict.fromkeys(("arm", "cli", "__main__", "check", "show", "schema", "doctor"), 6),
}
"""Of modules at the top of the package; the others there are drivers, layer 5."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def layer(module: str) -> int:
    parts = module.split(".")
    if parts[1] == "ops":
        return 1
    if parts[1] in FAMILIES:
        return 2 if parts[2:] == ["base"] else 3
    return LAYERS.get(parts[1], 5)


def imports(path: Path, *, running: bool) -> set[str]:
    """Modules of the package that a file names. `running` leaves out TYPE_CHECKING blocks."""
    nodes, found = [ast.parse(path.read_text(encoding="utf-8"))], set()
    while nodes:
        node = nodes.pop()
        if running and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        nodes += ast.iter_child_nodes(node)
    return found & MODULES.keys()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_layers_look_down(module: str):
    """Types are layer 2 and below everywhere: annotations may name what a module is handed."""
    above = {name for name in imports(MODULES[module], running=True) if layer(name) > layer(module)}
    assert not above, f"{module} (layer {layer(module)}) imports from above: {sorted(above)}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if layer(name) == 3))
def test_a_plugin_imports_no_plugin(module: str):
    others = {n for n in imports(MODULES[module], running=False) if layer(n) == 3} - {module}
    assert not others, f"{module} imports other plug-ins: {sorted(others)}"


def test_no_import_cycles():
    graph = {name: imports(path, running=True) for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


@pytest.mark.parametrize("module", sorted(MODULES))
def test_files_are_small(module: str):
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{module} has {lines} lines: split it by idea"


def test_no_drawer_for_everything():
    assert not [name for name in MODULES if name.rsplit(".", 1)[1] in ("utils", "helpers", "misc")]


def test_one_folder_imports_vllm():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found |= {path.parent for name in names if name.split(".")[0] == "vllm"}
    assert found == {PACKAGE / "vllm_adapter"}


def test_a_recipe_is_read_without_torch():
    code = (
        "import sys, trainer.config, trainer.schema; trainer.schema.recipe_schema();"
        "print(*sorted({'torch', 'transformers', 'vllm', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
