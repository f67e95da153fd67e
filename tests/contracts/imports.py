"""The rules of docs/architecture.md about who may import what, as a table and a checker of one source text."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# From the bottom to the top. A room imports rooms of lower floors and itself, nothing else: rooms on one floor
# are strangers. A room is the first name after `xdyna`.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "allocator"}),
    frozenset({"media", "options", "model_preset", "windows", "models", "conditions"}),
    frozenset({"sampling", "weights", "machine", "driving", "flags"}),
    frozenset({"convert", "data", "condition_clips", "evaluation", "presets"}),
    frozenset({"runs", "ranks"}),
    frozenset({"encoding", "holding", "refining"}),
    frozenset({"pipeline"}),
    frozenset({"training", "animate", "synthbench"}),
    frozenset({"condition_files", "demo", "batch"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Closed rooms: all that they may import from outside the standard library. `conditions` may also import, inside a
# function, what a detector runs on.
ONLY = {
    "errors": frozenset[str](),
    "allocator": frozenset[str](),
    "options": frozenset[str](),
    "model_preset": frozenset[str](),
    "windows": frozenset({"numpy"}),
    "models": frozenset({"torch", "diffusers", "einops", "numpy"}),
    "conditions": frozenset({"numpy", "cv2"}),
}
ONLY_INSIDE_FUNCTIONS = {"conditions": frozenset({"mediapipe", "onnxruntime"})}

# Packages made of a heavy one, which they import when loaded: others import them inside functions.
MADE_OF = {"xdyna.models.kernels": frozenset({"triton"})}

# Heavy or optional: imported inside the function that needs them, so that nobody else waits or needs them.
LAZY = frozenset({"mediapipe", "onnxruntime", "gradio", "ray", "transformers", "av", "tensorboard", "triton"})

# torchvision pins torch and is needed for nothing.
NEVER = frozenset({"torchvision"})


@dataclass(frozen=True)
class Import:
    """One imported module, and whether the import runs when the importing module is loaded."""

    name: str
    line: int
    at_load: bool


def violations(module: str, source: str, *, package: bool = False) -> list[str]:
    """The rules that a module breaks, one sentence each.

    Args:
        module: its dotted name, e.g. "xdyna.models.unet".
        source: its text.
        package: whether it is an `__init__.py`.
    """
    room = room_of(module)
    if room and room not in FLOOR:
        return [f"{module}: the room {room!r} is on no floor; add it to FLOORS and to docs/architecture.md"]
    return [
        f"{module}:{found.line}: {problem}"
        for found in imports(module, source, package=package)
        for problem in _problems(module, found)
    ]


def room_of(module: str) -> str:
    """The first name after `xdyna`; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, source: str, *, package: bool = False) -> Iterator[Import]:
    """Every import of a module, those inside functions included, relative ones resolved."""
    here = module.split(".") if package else module.split(".")[:-1]
    for node, at_load in _statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_load)
        else:
            above = here[: len(here) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from xdyna import media` names a room; elsewhere what follows `import` does not matter.
                whole = f"{base}.{alias.name}"
                yield Import(whole if base == "xdyna" or whole in MADE_OF else base, node.lineno, at_load)


def _statements(tree: ast.AST, at_load: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, at_load
            continue
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        yield from _statements(node, at_load and not inside and not typing_only)


def _problems(module: str, found: Import) -> Iterator[str]:
    room, top = room_of(module), found.name.split(".")[0]
    here = next((made for made in MADE_OF if f"{module}.".startswith(f"{made}.")), "")
    if found.name in MADE_OF and found.at_load and not here:
        yield f"imports {found.name} when loaded; import it inside the function that needs it"
    if here and top in MADE_OF[here]:
        return
    if top == "xdyna":
        other = room_of(found.name)
        if other in ("", "__version__") or other == room:
            return
        if room == "" and found.at_load:
            yield f"imports {found.name} when loaded; the package's names are loaded on first use"
        elif other not in FLOOR:
            yield f"imports {found.name}, which is no room; import a name from the module it lives in"
        elif FLOOR[other] >= FLOOR.get(room, len(FLOORS)):
            yield f"imports {found.name}, but {other} does not lie below {room}"
        return
    if top in sys.stdlib_module_names:
        return
    if top in NEVER:
        yield f"imports {top}, which the project does without"
    if top in LAZY and found.at_load:
        yield f"imports {top} when loaded; import it inside the function that needs it"
    allowed = ONLY.get(room)
    if allowed is not None and top not in allowed:
        inside = ONLY_INSIDE_FUNCTIONS.get(room, frozenset())
        if top not in inside or found.at_load:
            yield f"imports {top}; {room} may import {', '.join(sorted(allowed)) or 'the standard library'} only"
