"""Each room imports only from the rooms that its rule allows, and no circle of imports exists (docs/design.md)."""

import ast
from functools import cache

from utils.paths import PROJECT

GROUND = (
    "errors",
    "paths",
    "noise",
    "kernels",
    "device",
    "formats",
    "measurements",
    "data",
    "weights",
    "checkpoint_file",
    "command_line",
)
CONTRACTS = ("utils.priors.base", "operators.base")
PLAN = ("utils.sampling.vocabulary", "utils.sampling.schedule", "utils.sampling.events")  # plain numbers, no torch
# what a room may import beside itself; a dotted name allows that module and what lies in it
MAY_IMPORT = {
    "utils.config": ("ground", *PLAN),
    "utils.priors": ("ground",),
    "operators": ("ground",),
    "utils.sampling": ("ground", *CONTRACTS),
    "utils.records": ("ground", "utils.config.fingerprint", "utils.config.settings"),
    "utils.evaluation": ("ground", "utils.records", "utils.sampling", "operators.base", "operators.gradients"),
    "utils.analysis": ("ground", "utils.records", "utils.config.fingerprint"),
    "utils.figures": ("ground", "utils.records", "utils.analysis"),
    "utils.running": (
        "ground",
        "utils.config",
        "utils.priors",
        "operators.base",
        "operators.fidelity",
        "utils.sampling",
        "utils.records",
        "sampler",
    ),
    "sampler": ("ground", *CONTRACTS, "utils.priors.wrappers", "utils.sampling"),
}
WITHOUT_TORCH = ("utils.config", "utils.records", "utils.analysis", *PLAN, "utils.weights", "utils.errors", "utils.paths")
OURS = ("utils", "operators", "sampler", "posterior_sample", "tools", "tests")


@cache
def modules():
    """{dotted name: syntax tree} of the program's own modules, tests apart."""
    files = [*PROJECT.glob("*.py"), *(f for room in ("utils", "operators", "tools") for f in (PROJECT / room).rglob("*.py"))]
    return {
        ".".join(f.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(f.read_text())
        for f in files
    }


def imports(tree, within_functions=True):
    """Dotted names of everything that a module imports of ours or others, down to the imported module."""
    nodes = ast.walk(tree) if within_functions else top_level(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "absolute imports only"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules() else node.module)
    return found


def top_level(tree):
    for node in tree.body:
        yield from [] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else ast.walk(node)


def lies_in(name, room):
    return name == room or name.startswith(room + ".")


def room_of(name):
    return next((room for room in MAY_IMPORT if lies_in(name, room)), None)


def is_ground(name):
    return name in {f"utils.{module}" for module in GROUND}


def own_imports(name):
    return {target for target in imports(modules()[name]) if target.split(".")[0] in OURS}


def test_every_module_has_a_room():
    homeless = [
        n for n in modules() if n.split(".")[0] in ("utils", "operators", "sampler") and not (is_ground(n) or room_of(n))
    ]
    assert homeless == ["utils"]  # the package itself


def test_rooms_import_what_their_rule_allows():
    wrong = [
        f"{name} imports {target}"
        for name in modules()
        if (room := room_of(name))
        for target in own_imports(name)
        if not lies_in(target, room)
        and not any(is_ground(target) if allowed == "ground" else lies_in(target, allowed) for allowed in MAY_IMPORT[room])
    ]
    assert wrong == []


def test_the_ground_floor_stands_on_itself():
    assert [f"{n} imports {t}" for n in modules() if is_ground(n) for t in own_imports(n) if not is_ground(t)] == []


def test_build_alone_may_import_the_sampler():
    importing = [n for n in modules() if n.startswith("utils.") and any(lies_in(t, "sampler") for t in own_imports(n))]
    assert importing == ["utils.running.build"]


def test_rooms_without_torch():
    """So that wrong input ends within a second, and tables need no network library."""
    wrong = [
        f"{name} imports {target}"
        for name, tree in modules().items()
        if any(lies_in(name, room) for room in WITHOUT_TORCH)
        for target in imports(tree, within_functions=False)
        if target.split(".")[0] in ("torch", "diffusers", "piq", "lpips")
    ]
    assert wrong == []


def test_no_circle():
    """Of modules, counting imports within functions too."""
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name in done or name not in modules():
            return
        open_.append(name)
        for target in sorted(own_imports(name) - {name}):
            visit(target)
        done.add(open_.pop())

    for name in modules():
        visit(name)


def test_the_program_imports_no_tool_and_no_test():
    assert [
        n for n in modules() if not lies_in(n, "tools") and any(t.split(".")[0] in ("tools", "tests") for t in own_imports(n))
    ] == []
