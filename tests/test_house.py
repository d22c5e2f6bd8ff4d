"""The packages of hwdiff are rooms of a house: each imports only those below it."""

import ast
import importlib
from pathlib import Path

import pytest

import hwdiff
from hwdiff.evaluation.generation import regenerate_lines
from hwdiff.evaluation.written import WRITING_CODE
from hwdiff.suite.runner import STATE_CODE
from hwdiff.training.loop import train

PACKAGE = Path(hwdiff.__file__).parent
# From the cellar to the roof.
ROOMS = ["utils", "ink", "data", "model", "diffusion", "training", "evaluation", "suite", "cli"]


def imports(path):
    """(line, module) of each import of hwdiff's own modules in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, name.name) for name in node.names if name.name.split(".")[0] == "hwdiff"
            )
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.split(".")[0] == "hwdiff":
            # `from hwdiff.room import module` names the module last, `from hwdiff import room` the room.
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "a relative import"


def upward(package):
    """One line for each import of a room above, or of no room."""
    for path in sorted(package.rglob("*.py")):
        here = path.relative_to(package)
        if len(here.parts) == 1:
            continue
        for line, module in imports(path):
            room = module.split(".")[1] if "." in module else None
            if room not in ROOMS or ROOMS.index(room) > ROOMS.index(here.parts[0]):
                yield f"{here}:{line} imports {module}"


def test_every_room_imports_only_rooms_below_it():
    assert list(upward(PACKAGE)) == []
    assert sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()) == sorted(ROOMS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def module_graph():
    """{module: the modules of hwdiff that it imports}."""

    def is_module(name):
        return (PACKAGE.parent / name.replace(".", "/")).with_suffix(".py").exists()

    graph = {}
    for path in PACKAGE.rglob("*.py"):
        module = "hwdiff." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        graph[module] = {name if is_module(name) else name.rpartition(".")[0] for _, name in imports(path)}
    return graph


def test_modules_of_a_room_do_not_import_one_another_in_a_circle():
    graph = module_graph()
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in sorted(graph.get(module, ())):
                visit(other)
            path.pop()
            done.add(module)

    for module in sorted(graph):
        visit(module)


@pytest.mark.parametrize(
    ("code", "user"), [(WRITING_CODE, regenerate_lines), (STATE_CODE, train)], ids=["written lines", "states"]
)
def test_what_a_cache_depends_on_is_named_whole(code, user):
    assert all((PACKAGE / part).exists() for part in code)
    named = tuple("hwdiff." + part.removesuffix(".py").replace("/", ".") + "." for part in code)
    graph, left, seen = module_graph(), [user.__module__], set()
    while left:
        module = left.pop()
        if module not in seen:
            seen.add(module)
            left.extend(graph.get(module, ()))
    assert len(seen) > 10
    assert [module for module in seen if not f"{module}.".startswith(named)] == []


def test_an_import_that_goes_up_is_found(tmp_path):
    (tmp_path / "ink").mkdir()
    (tmp_path / "ink" / "bad.py").write_text(
        "import numpy\n\n\ndef f():\n"
        "    from hwdiff.training import loop\n    from hwdiff.utils.files import sha256_of\n"
    )
    assert list(upward(tmp_path)) == ["ink/bad.py:5 imports hwdiff.training.loop"]


@pytest.mark.parametrize("room", ["hwdiff", *(f"hwdiff.{room}" for room in ROOMS)])
def test_a_room_offers_what_it_says(room):
    package = importlib.import_module(room)
    assert package.__doc__
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    for name in package.__all__:
        assert callable(getattr(package, name)) or getattr(package, name)
        assert name not in modules
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
