"""Each room imports only from the rooms that its rule allows, and no circle of imports exists (docs/design.md)."""

import ast
import re
from functools import cache

from utils.mechanisms import ORDER
from utils.paths import PROJECT

GROUND = (
    "errors",
    "paths",
    "files",
    "noise",
    "kernels",
    "device",
    "formats",
    "hdf5",
    "pictures",
    "conventions",
    "stacks",
    "frames",
    "plain_files",
    "measurements",
    "data",
    "weights",
    "digests",
    "checkpoint_file",
    "command_line",
)
CONTRACTS = ("utils.priors.base", "operators.base")
PLAN = ("utils.sampling.vocabulary", "utils.sampling.schedule", "utils.sampling.phases")  # plain numbers, no torch
PLANS = ("utils.mechanisms.plan", "utils.mechanisms.registry")  # of the mechanisms, no torch
# what a room may import beside itself; a dotted name allows that module and what lies in it
MAY_IMPORT = {
    "utils.config": ("ground", *PLAN, *PLANS, "utils.population.settings"),
    "utils.population": (
        "ground",
        *CONTRACTS,
        *PLANS,
        "utils.config.section",
        "utils.sampling",
        "utils.metrics.pixels",
        "utils.evaluation.aligned",
    ),
    "utils.priors": ("ground",),
    "operators": ("ground",),
    "utils.sampling": ("ground", *CONTRACTS),
    "utils.mechanisms": (
        "ground",
        *CONTRACTS,
        "utils.config.section",
        "utils.config.operators",
        "utils.records.blocks",
        "utils.records.births",
        "utils.sampling",
        "utils.evaluation.aligned",
    ),
    "utils.metrics": ("ground", "operators.base", "operators.gradients"),
    "utils.callbacks": ("ground",),
    "utils.records": ("ground", *PLANS, "utils.metrics", "utils.config.fingerprint", "utils.config.settings"),
    "utils.evaluation": (
        "ground",
        *PLANS,
        "utils.metrics",
        "utils.records",
        "utils.sampling",
        "utils.population",
        "operators.base",
        "utils.callbacks.base",
    ),
    "utils.analysis": ("ground", *PLANS, "utils.metrics", "utils.records", "utils.config.fingerprint"),
    "utils.figures": ("ground", *PLANS, "utils.records", "utils.analysis"),
    "utils.running": (
        "ground",
        "utils.config",
        "utils.priors",
        "operators.base",
        "operators.fidelity",
        "operators.term",
        *PLANS,
        "utils.sampling",
        "utils.metrics",
        "utils.records",
        "utils.diagnosis",
        "utils.evaluation",
        "utils.population",
        "utils.algorithms.contract",
        "utils.callbacks",
    ),
    "utils.diagnosis": (
        "ground",
        "utils.config.settings",
        "utils.priors",
        "operators.base",
        "operators.term",
        "utils.sampling",
        "utils.metrics.base",
        "utils.records.verdict",
        "utils.running.build",
        "utils.running.ranks",
    ),
    "utils.algorithms": ("ground", *CONTRACTS, "utils.priors.wrappers", "utils.sampling"),
    "sampler": ("ground", "utils.algorithms.contract", *CONTRACTS, "utils.priors.wrappers", "utils.sampling"),
}
WITHOUT_TORCH = (
    "utils.population.settings",
    "utils.population.calibrating",
    *PLANS,
    *(f"utils.mechanisms.{name}.plan" for name in ORDER),
    "utils.config",
    "utils.metrics",
    "utils.callbacks",
    "utils.records",
    "utils.analysis",
    *PLAN,
    "utils.weights",
    "utils.digests",
    "utils.errors",
    "utils.paths",
    "utils.files",
    "utils.plain_files",
)
OURS = ("latentdaps", "utils", "operators", "sampler", "posterior_sample", "tools", "tests")


@cache
def modules():
    """{dotted name: syntax tree} of the program's own modules, tests apart."""
    files = [
        *PROJECT.glob("*.py"),
        *(f for room in ("latentdaps", "utils", "operators", "tools") for f in (PROJECT / room).rglob("*.py")),
    ]
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
    """What runs when a module is imported: neither functions nor what only a type checker reads."""
    for node in tree.body:
        types_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        yield from [] if types_only or isinstance(node, (ast.FunctionDef, ast.ClassDef)) else ast.walk(node)


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


def test_no_room_knows_an_algorithm():
    """The config names it: `sampler._target_`."""
    importing = [n for n in modules() if n.startswith("utils.") and any(lies_in(t, "sampler") for t in own_imports(n))]
    assert importing == []


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


BUILDS_ON = {"children": ("pruning",)}  # mechanisms that are made of another one, and may name it
# keys of metrics.json and names of others that hold the name of a mechanism
NO_MECHANISM = ("num_children", "named_children")
NAMING = ("utils/config/renamed.py", "utils/mechanisms/__init__.py")  # what is called otherwise; the order
# a mechanism whose name is a word of every day is meant where its section or its module stands
EVERYDAY = {"start": r"settings\.start\b|\bs\.start\b|start\.bank|mechanisms\.start"}
USERS_TOOLS = [path for path in (PROJECT / "tools").glob("*.py")]


def mentions(text):
    """The mechanisms that a text names, as a word or as a part of an identifier."""
    for word in NO_MECHANISM:
        text = text.replace(word, "")
    patterns = {name: EVERYDAY.get(name, rf"(?<![a-z]){name}(?![a-z])") for name in ORDER}
    return {name for name, pattern in patterns.items() if re.search(pattern, text, re.IGNORECASE)}


def test_a_mechanism_owns_itself():
    """No file outside utils/mechanisms/NAME/ contains NAME: a new mechanism costs one folder and one name."""
    files = [
        *PROJECT.glob("*.py"),
        *USERS_TOOLS,
        *(f for room in ("latentdaps", "utils", "operators") for f in (PROJECT / room).rglob("*.py")),
    ]
    wrong = []
    for file in files:
        path = file.relative_to(PROJECT).as_posix()
        owner = file.parent.name if file.parent.parent.name == "mechanisms" else None
        allowed = {owner, *BUILDS_ON.get(owner, ())}
        wrong += [f"{path} names {name}" for name in mentions(file.read_text()) - allowed if path not in NAMING]
    assert wrong == []


def test_what_names_a_mechanism():
    assert mentions("settings.pruning_step") == {"pruning"} and mentions("Repulsion(1.0)") == {"repulsion"}
    assert mentions("module.named_children(), num_children, optimisation, pruned") == set()
    assert mentions("settings.start.bank") == {"start"} and mentions("from the start, Particles.start(y)") == set()
