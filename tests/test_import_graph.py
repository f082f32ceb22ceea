"""The rooms of the library and the arrows between them, read from the sources."""

import ast
import itertools
from pathlib import Path

import pytest

import tts_jax

LIBRARY = Path(tts_jax.__file__).parent
# Imports go from a later room to earlier ones.
ROOMS = (
    ("_types",),
    ("_errors",),
    ("_device",),
    ("_rare",),
    ("_digest",),
    ("quadrature",),
    ("gram",),
    ("cubic_step",),
    ("activations",),
    ("networks",),
    ("targets",),
    ("step_integrals",),
    ("steps",),
    ("cells",),
    ("problem",),
    ("empirical",),
    ("solvers",),
    ("dynamics",),
    ("trajectory",),
    ("simulation",),
    ("runs",),
    ("progress",),
    ("metrics",),
    ("sweeps",),
    ("analyses",),
    ("plot",),
    ("cli",),
    # The public face and `python -m tts_jax` stand above all rooms.
    ("__init__", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
FILES = [
    file
    for file in sorted(LIBRARY.rglob("*.py"))
    if file.relative_to(LIBRARY).parts[0] != "_experiments"  # shipped beside it, not part of it
]
NAMES = [str(file.relative_to(LIBRARY)) for file in FILES]


def module_of(name):
    """("dynamics", "sgd") for dynamics/sgd.py; a package's own module ends in __init__."""
    return tuple(name.removesuffix(".py").split("/"))


def imported(module, source):
    """Dotted names that a module of the library imports, absolute, wherever they stand."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["tts_jax", *module][: len(module) + 1 - node.level] if node.level else []
            parts = [*base, *([node.module] if node.module else [])]
            # What is imported may be a name in the module or a module in the package.
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def wrong_arrows(module, source):
    """What a module must not import, as readable complaints."""
    room = module[0]
    for name in imported(module, source):
        parts = name.split(".")
        if "experiments" in parts or "_experiments" in parts:
            yield f"{'.'.join(module)} imports {name}"
        if parts[0] != "tts_jax" or len(parts) < 2:
            continue
        other = parts[1] if parts[1] in LEVEL else "__init__"
        if other != room and LEVEL[other] >= LEVEL[room]:
            yield f"{'.'.join(module)} imports {name}, from a room above"


def test_every_file_stands_in_a_known_room():
    assert {module_of(name)[0] for name in NAMES} <= set(LEVEL)


def test_imports_only_go_down():
    complaints = [
        complaint
        for name, file in zip(NAMES, FILES, strict=True)
        for complaint in wrong_arrows(module_of(name), file.read_text())
    ]
    assert complaints == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (("activations",), "from .networks import Params"),
        (("activations",), "from . import networks"),
        (("activations",), "import tts_jax.networks"),
        (("activations",), "from tts_jax.networks import Params"),
        (("activations",), "from tts_jax import Params"),
        (("activations",), "from . import __version__"),
        (("solvers", "chord"), "from ..dynamics import SGD"),
        (("dynamics", "sgd"), "from ..simulation import simulate"),
        (("dynamics", "__init__"), "from .. import simulate"),
        (("metrics",), "def late():\n    from .cli import main"),
        (("cli",), "import experiments.notations"),
        (("cli",), "from tts_jax import _experiments"),
    ],
)
def test_an_arrow_that_goes_up_is_seen(module, source):
    assert list(wrong_arrows(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (("networks",), "from .activations import CubicStep"),
        (("dynamics", "sgd"), "from ..networks import Params\nfrom .base import Records"),
        (("dynamics", "sgd"), "from .._types import Key"),
        (("cli",), "from . import plot"),
        (("__init__",), "from .simulation import simulate"),
        (("plot",), "import matplotlib.networks"),
    ],
)
def test_an_arrow_that_goes_down_is_none(module, source):
    assert not list(wrong_arrows(module, source))


def forbidden(source):
    """Calls of print and of JAX's global configuration."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" or called.endswith("config.update"):
                yield called


def test_only_the_command_prints_and_configures_jax():
    found = {
        name: calls
        for name, file in zip(NAMES, FILES, strict=True)
        if not name.startswith("cli/") and (calls := list(forbidden(file.read_text())))
    }
    assert found == {}
    assert list(forbidden("import jax\njax.config.update('jax_enable_x64', True)\nprint(1)"))


def test_no_file_is_over_400_lines():
    lengths = {
        name: len(file.read_text().splitlines()) for name, file in zip(NAMES, FILES, strict=True)
    }
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_rooms_are_named_once():
    rooms = list(itertools.chain(*ROOMS))
    assert len(rooms) == len(set(rooms))


def test_experiments_import_the_public_face_only():
    root = Path(__file__).parents[1]
    for path in (root / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [name for name in names if name.split(".")[0] == "tts_jax"]
            assert set(inside) <= {"tts_jax", "tts_jax.plot", "tts_jax.metrics"}, path.name
