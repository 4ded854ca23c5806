"""What the rooms of the package promise each other, read off the source.

A file imports from the floors below its own or from its own room; only channels call
collectives; public names are exported once, documented and tested.
"""

import ast
import graphlib
import inspect
import pathlib
import pydoc
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from typing import get_origin

import jax
import pytest

import gmc_jax

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "gmc_jax"

# `core` imports nothing of the package, and every room may import it.
FLOORS = {
    "core": 0,
    "utils": 0,
    "graphs": 1,
    "compressors": 1,
    "clocks": 2,
    "channels": 2,
    "transforms": 3,
    "costs": 3,
    "methods": 4,
    "execution": 5,
    "checkpoints": 6,
    "__init__": 7,
}
ROOMS = ["compressors", "channels", "transforms", "methods"]
# Modules without an underscore that export no name at the top. They are read by those
# who extend the package.
DOCUMENTED = {
    "channels.sharded.codec",
    "channels.sharded.context",
    "channels.sharded.global_top_k",
    "channels.sharded.joined",
    "channels.sharded.shard_codecs",
    "channels.sharded.shards",
    "channels.sharded.stacks",
    "channels.sharded.whole_messages",
    "checkpoints.array_store",
    "checkpoints.compatibility",
    "checkpoints.manifest",
    "costs.sent_per_step",
    "costs.candidates",
    "costs.expressions",
    "costs.hlo",
    "costs.hlo_text",
    "costs.patterns",
    "costs.replica_groups",
    "costs.trip_counts",
    "costs.worth",
    "graphs.matchings",
    "graphs.sparse_matrix",
    "transforms.sync_hooks",
}
# Files of a room that export several names, or classes alone.
SHARED = {
    "compressors": set(),
    "channels": {"compressed", "delayed_messages"},
    "transforms": {
        *("buffers", "consensus", "full_gradient", "merges", "query", "sync_hooks")
    },
    "methods": {"asynchronous"},
}
DEPENDENCIES = {"jax", "numpy", "optax"}
# What some files import where it is needed, and not before.
LAZY = {"array_store": {"orbax", "tensorstore"}, "_matcha": {"scipy"}}
EXTRAS = [
    "chex",
    "flax",
    "hypothesis",
    "importlib_resources",
    "matplotlib",
    "orbax",
    "pytest",
    "rich",
    "scipy",
    "sklearn",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tensorstore",
    "tyro",
]
NOT_COLLECTIVES = {"axis_index", "axis_size", "pcast"}
LINES_OF_CODE = 200

FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize(
    "file", FILES, ids=lambda file: str(file.relative_to(PACKAGE))
)


def module_of(file: pathlib.Path) -> str:
    """The dotted name, with `__init__` spelled out."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


MODULES = {module_of(file) for file in FILES}


def parsed(file: pathlib.Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file: pathlib.Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_imported(file: pathlib.Path) -> set[str]:
    """The modules of the package that a file imports."""
    found = set()
    for name in imported(file):
        if name.split(".")[0] == "gmc_jax":
            parent = name.rpartition(".")[0]
            candidates = [name, parent, f"{name}.__init__", f"{parent}.__init__"]
            found.add(next(module for module in candidates if module in MODULES))
    return found


CORE = "gmc_jax.core"


def room_of(module: str) -> str:
    return module.split(".")[1]


def offences(module: str, others: set[str]) -> list[str]:
    """Which of the other modules a module may not import."""
    floor = FLOORS[room_of(module)]

    def allowed(other: str) -> bool:
        same_room = room_of(other) == room_of(module)
        return same_room or other == CORE or FLOORS[room_of(other)] < floor

    return sorted(other for other in others if not allowed(other))


@every_file
def test_a_file_imports_from_below_or_from_its_own_room(file):
    assert offences(module_of(file), modules_imported(file)) == []


def test_what_counts_as_an_offence():
    below, above = "gmc_jax.utils.trees", "gmc_jax.methods.gmc"
    sibling, root = "gmc_jax.channels._axis", "gmc_jax.__init__"
    channel = "gmc_jax.channels.exact"
    assert offences(channel, {CORE, below, sibling}) == []
    assert offences(channel, {above, root}) == [root, above]
    assert offences(CORE, {below}) == [below]
    assert offences("gmc_jax.costs.traffic", {"gmc_jax.transforms.query"})
    assert offences("gmc_jax.graphs.topology", {"gmc_jax.compressors.top_k"})


def test_no_imports_go_in_circles():
    graph = {module_of(file): modules_imported(file) for file in FILES}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == MODULES


@every_file
def test_a_file_imports_nothing_but_the_dependencies(file):
    packages = {name.split(".")[0] for name in imported(file)}
    known = DEPENDENCIES | set(sys.stdlib_module_names) | {"gmc_jax"}
    assert packages <= known | LAZY.get(file.stem, set())
    assert not [name for name in imported(file) if "._src" in name]


def test_the_package_runs_where_no_extra_is_installed():
    program = f"""
import sys
for name in {EXTRAS}:
    sys.modules[name] = None
import gmc_jax, jax, jax.numpy as jnp
tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.5)))
def step(state, batch):
    params, opt_state = state
    updates, opt_state = tx.update(params - batch, opt_state, params)
    return (params + updates, opt_state), 0.0
train, state = gmc_jax.simulate(
    step, (jnp.zeros(4), tx.init(jnp.zeros(4))), jnp.ones((2, 4)), 2
)
state, _ = train(state, jnp.ones((2, 4)))
assert state[0].any()
assert "experiments" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def collectives() -> set[str]:
    """Dotted names of what communicates in JAX: functions of a named axis."""

    def takes_axis_name(function) -> bool:
        try:
            return "axis_name" in inspect.signature(function).parameters
        except (TypeError, ValueError):
            return False

    functions = inspect.getmembers(jax.lax, takes_axis_name)
    names = {name for name, _ in functions} - NOT_COLLECTIVES
    return {f"jax.lax.{name}{suffix}" for name in names for suffix in ("", "_p")}


def names_used(tree: ast.Module) -> set[str]:
    """Dotted names of all that a file uses, its import aliases resolved."""
    aliases, used = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                aliases[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                aliases[alias.asname or alias.name] = name
                used.add(name)
    for node in ast.walk(tree):
        attributes = []
        while isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in aliases:
            used.add(".".join([aliases[node.id], *reversed(attributes)]))
    return used


@every_file
def test_only_channels_call_collectives(file):
    if "channels" not in file.relative_to(PACKAGE).parts:
        assert not names_used(parsed(file)) & collectives()


def test_collectives_are_recognized():
    assert {"jax.lax.psum", "jax.lax.all_gather", "jax.lax.ppermute"} <= collectives()
    for source in (
        "import jax\njax.lax.psum(x, 'workers')",
        "from jax import lax\nlax.psum(x, 'workers')",
        "from jax.lax import psum as add\nadd(x, 'workers')",
        "import jax.lax as language\ndef f(x):\n  return language.psum(x, 'workers')",
    ):
        assert names_used(ast.parse(source)) & collectives(), source
    collective = PACKAGE / "channels" / "_collectives.py"
    assert "jax.lax.psum" in names_used(parsed(collective))


def test_the_hall_holds_rooms_and_what_all_of_them_share():
    here = {path.stem for path in PACKAGE.iterdir()}
    assert here - {"__pycache__", "py"} == FLOORS.keys()


def test_a_module_that_is_not_public_is_marked():
    """It starts with an underscore, or lies in `utils`."""
    exported = {f"{module}.{name}" for module, name in exports()} & MODULES
    exporting = {module for module, _ in exports()} | exported
    unmarked = {
        module
        for module in MODULES
        if not module.rpartition(".")[2].startswith("_")
        and room_of(module) not in ("core", "utils")
    }
    documented = {f"gmc_jax.{module}" for module in DOCUMENTED}
    assert unmarked - exporting == documented


@pytest.mark.parametrize(
    "room", sorted(PACKAGE.rglob("*/__init__.py")), ids=lambda file: file.parent.name
)
def test_a_room_itself_is_a_docstring(room):
    (only,) = parsed(room).body
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)
    assert isinstance(only.value.value, str)


# The experiments.

# A folder of `experiments` imports from lower levels alone. `runs` are loaded by name.
LEVELS = {
    "utils": 0,
    "data": 1,
    "models": 1,
    "training": 2,
    "paper": 3,
    "studies": 3,
    "hosts": 3,
    "network": 4,
    "bench": 4,
    "docs": 4,
    "runs": 4,
    "commands": 5,
    "__main__": 6,
}
EXPERIMENTS = ROOT / "experiments"
every_experiment = pytest.mark.parametrize(
    "file",
    sorted(file for file in EXPERIMENTS.rglob("*.py") if file.stem != "__init__"),
    ids=lambda file: str(file.relative_to(EXPERIMENTS)),
)


@every_experiment
def test_a_folder_of_experiments_imports_from_lower_ones(file):
    folder = room_of(module_of(file))
    others = {room_of(n) for n in imported(file) if n.startswith("experiments.")}
    assert all(LEVELS[other] < LEVELS[folder] for other in others - {folder})


@every_experiment
def test_a_module_of_experiments_has_a_test_file(file):
    """Its own, or its folder's: `test_train.py` of `train`, `test_bench.py` of `bench`.

    Types alone, runs, the command line and the settings of Sphinx need none.
    """
    folder = file.parent.relative_to(EXPERIMENTS)
    functions = any(isinstance(x, ast.FunctionDef) for x in ast.walk(parsed(file)))
    if not functions or file.parent == EXPERIMENTS or file.name == "conf.py":
        return
    mirror = ROOT / "tests" / "experiments" / folder
    its_own, of_its_folder = f"test_{file.stem}.py", f"test_{folder.name}.py"
    candidates = (
        mirror / its_own,
        mirror / of_its_folder,
        mirror.parent / of_its_folder,
    )
    assert any(candidate.exists() for candidate in candidates)


def test_a_folder_of_experiments_or_of_their_tests_imports_nothing():
    for folder in (EXPERIMENTS, ROOT / "tests" / "experiments"):
        for room in folder.rglob("__init__.py"):
            assert ast.get_docstring(parsed(room)), room
            assert not list(imported(room)), room


# The public names.


def exports() -> list[tuple[str, str]]:
    """The module and the name of each export, in the order of the file."""
    docstring, *rest = parsed(PACKAGE / "__init__.py").body
    assert isinstance(docstring, ast.Expr)
    found = []
    for node in rest:
        if isinstance(node, ast.Assign | ast.AugAssign):
            assert ast.unparse(node).startswith(("__all__ ", "__version__ "))
            continue
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        for alias in node.names:
            assert alias.asname == alias.name, "a name is exported as itself"
            found.append((str(node.module), alias.name))
    return found


every_export = pytest.mark.parametrize("name", [name for _, name in exports()])


def test_every_public_name_is_exported_once():
    names = [name for _, name in exports()]
    assert len(names) == len(set(names))
    visible = {name for name in dir(gmc_jax) if not name.startswith("_")}
    submodules = {name for name in visible if inspect.ismodule(getattr(gmc_jax, name))}
    assert visible - submodules == set(names) - submodules


def test_all_names_are_in_the_group_of_their_kind():
    """`__all__` is what `help` shows; without it there is not one function."""
    names = [name for _, name in exports()]
    assert sorted(gmc_jax.__all__) == sorted(names)
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    groups = {
        group.split()[1].strip(".:"): set(re.findall(r'"(\w+)",', group))
        for group in re.findall(r"^# .*\n__all__[^]]*\]", source, re.M)
    }
    for room in ROOMS:
        made_here = {name for its_room, name in factories() if its_room == room}
        assert made_here <= groups[room.capitalize()]
    shown = pydoc.plain(pydoc.render_doc(gmc_jax))
    assert "\nFUNCTIONS\n" in shown
    for name in ("gmc", "all_gather", "top_k", "simulate", "message_bits"):
        assert re.search(rf"^    {name}\(", shown, re.M), name
    # The map of the docstring names what there is.
    words = re.findall(r"\b[a-z]+_[a-z_0-9]+\b", inspect.getdoc(gmc_jax) or "")
    assert {word for word in words if word != "gmc_jax"} <= set(names)


def factories() -> list[tuple[str, str]]:
    """Room and name of every file that holds a factory of its name."""
    return [
        (room, file.stem)
        for room in ROOMS
        for file in sorted((PACKAGE / room).glob("*.py"))
        if not file.stem.startswith("_") and file.stem not in SHARED[room]
    ]


@pytest.mark.parametrize(("room", "name"), factories())
def test_a_factory_has_a_file_an_export_and_a_test_file(room, name):
    assert (f"gmc_jax.{room}.{name}", name) in exports()
    body = parsed(PACKAGE / room / f"{name}.py").body
    public = {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }
    assert name in public
    exported = {export for module, export in exports() if module.endswith(f".{name}")}
    assert public & exported == {name}, "one public factory a file"
    assert (ROOT / "tests" / room / f"test_{name}.py").exists()


@every_export
def test_every_public_function_is_met_in_a_test(name):
    if inspect.isfunction(getattr(gmc_jax, name)):
        word = re.compile(rf"\b{name}\b")
        files = set(ROOT.glob("tests/**/*.py")) - {pathlib.Path(__file__)}
        assert any(word.search(file.read_text(encoding="utf-8")) for file in files)


@every_file
def test_a_module_has_a_test_file(file):
    """In the folder of its room; of pieces that a room shares, the room's laws."""
    room = file.relative_to(PACKAGE).parent
    if room.name in ROOMS or file.stem in ("__init__", "core"):
        return
    name = file.stem.removeprefix("_")
    assert (ROOT / "tests" / room / f"test_{name}.py").exists()


# Docstrings.


def section(docstring: str, title: str) -> list[str]:
    """The lines of a section, without their common indentation."""
    found = re.search(rf"^{title}:\n((?:[ \t]+.*\n|\n)+)", docstring + "\n", re.M)
    return inspect.cleandoc("\n" + found[1]).splitlines() if found else []


def entries(lines: list[str]) -> list[str]:
    """The names that a section describes."""
    starts = [re.match(r"\*{0,2}(\w+):", line) for line in lines]
    return [start[1] for start in starts if start]


def raises(function) -> bool:
    """Whether the function itself raises or checks."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(function))))
    checks = [
        node
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "checks"
    ]
    return bool(checks) or any(isinstance(node, ast.Raise) for node in nodes)


@every_export
def test_signatures_show_types_as_they_are_written(name):
    """As `optax.ScalarOrSchedule`, not as the union that it stands for."""
    thing = getattr(gmc_jax, name)
    if inspect.isfunction(thing):
        shown = str(inspect.signature(thing))
        assert not re.search(r"Union|_src|typing|collections", shown), shown


@every_export
def test_every_public_name_is_documented(name):
    thing = getattr(gmc_jax, name)
    if get_origin(thing):
        return  # An alias, which is documented where it stands.
    docstring = inspect.getdoc(thing) or ""
    assert re.match(r"[A-Z].*\.\n", docstring + "\n"), "the first line is a sentence"
    if inspect.isfunction(thing):
        parameters = list(inspect.signature(thing).parameters)
        assert entries(section(docstring, "Args")) == parameters
        hints = inspect.get_annotations(thing, eval_str=True)
        assert set(hints) == {*parameters, "return"}
        if hints["return"] is not None:
            assert section(docstring, "Returns")
        if raises(thing):
            assert section(docstring, "Raises")
    elif hasattr(thing, "_fields"):
        assert entries(section(docstring, "Attributes")) == list(thing._fields)


@pytest.mark.parametrize(
    "name", [name for room, name in factories() if room == "methods"]
)
def test_a_method_is_documented_like_a_paper(name):
    docstring = inspect.getdoc(getattr(gmc_jax, name)) or ""
    for title in ("Args", "Returns", "Raises", "Example", "Guarantees", "References"):
        assert section(docstring, title), title
    assert re.search(r"^    \w.*(=|<-)", docstring, re.M), "equations"
    method = getattr(gmc_jax, name)
    parameters = inspect.signature(method, eval_str=True).parameters
    # What steps, who averages (perhaps in several ways); the rest is spelled out.
    first, *others = parameters.values()
    assert first.name in ("learning_rate", "inner")
    averages = [other for other in others if other.kind is not other.KEYWORD_ONLY]
    assert [other.name for other in averages[:1]] in (["channel"], ["topology"], [])
    whose = (gmc_jax.Channel, gmc_jax.Topology, gmc_jax.RandomTopology)
    assert all(other.annotation in whose for other in averages)


# Size.


def lines_of_code(file: pathlib.Path) -> int:
    """Lines that hold more than a comment or a docstring."""
    lines = set()
    with tokenize.open(file) as source:
        for token in tokenize.generate_tokens(source.readline):
            if token.type not in (
                tokenize.COMMENT,
                tokenize.NL,
                tokenize.NEWLINE,
                tokenize.INDENT,
                tokenize.DEDENT,
                tokenize.ENDMARKER,
            ):
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parsed(file)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


@pytest.mark.parametrize(
    "file",
    # The public names are a list, an import and a line for each.
    sorted({*FILES, *ROOT.glob("experiments/**/*.py")} - {PACKAGE / "__init__.py"}),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_a_file_is_short(file):
    assert lines_of_code(file) <= LINES_OF_CODE


def test_the_top_level_holds_nothing_else():
    """Other top-level entries would be in a newcomer's way; hidden ones are not."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout")
    entries = {name.split("/")[0] for name in tracked.stdout.split()}
    assert {entry for entry in entries if not entry.startswith(".")} <= {
        "LICENSE",
        "README.md",
        "experiments",
        "gmc_jax",
        "pyproject.toml",
        "tests",
    }
