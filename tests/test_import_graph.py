"""Imports go down from room to room and from file to file, and other rules of the sources."""

import ast
import importlib
from pathlib import Path

import pytest
from import_graph import FILES_OF, ROOMS, drawing, files, floor, wrong_arrows

import tts_jax as tts

ROOT = Path(__file__).parents[1]
SOURCES = {module: file.read_text() for module, file in files().items()}


def test_every_file_stands_in_a_known_room_and_place():
    for module in SOURCES:
        assert module[0] in ROOMS
        if module[0] in FILES_OF and module[-1] != "__init__":
            assert floor(FILES_OF[module[0]], list(module[1:])) is not None, module


def test_every_room_and_every_place_is_there():
    there = {module[0] for module in SOURCES}
    assert there == set(ROOMS)
    for room, order in FILES_OF.items():
        inside = {".".join(module[1:]) for module in SOURCES if module[0] == room}
        folders = {".".join(module[1:-1]) for module in SOURCES if module[0] == room}
        assert set(order) <= inside | folders


def test_imports_only_go_down():
    assert [c for module, source in SOURCES.items() for c in wrong_arrows(module, source)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (("models", "activations"), "from ..problems.base import AbstractProblem"),
        (("models", "activations"), "from .. import dynamics"),
        (("models", "activations"), "import tts_jax.dynamics"),
        (("models", "activations"), "from tts_jax.dynamics.flow import AbstractFlow"),
        (("models", "activations"), "from tts_jax import Params"),
        (("models", "activations"), "from .. import __version__"),
        (("models", "activations"), "from .network import Params"),
        (("models", "activations"), "from . import targets"),
        (("integrators", "diffrax", "chord"), "from ...dynamics import flow"),
        (("dynamics", "sgd", "dynamics"), "from ...simulation import simulate"),
        (("dynamics", "flow"), "from .sgd.dynamics import SGD"),
        (("dynamics", "flow"), "def late():\n    from .gradient_flow import GradientFlow"),
        (("closed_forms", "base"), "from .pairwise import PairwiseRisk"),
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
        (("models", "network"), "from .activations import CubicStep"),
        (("dynamics", "gradient_flow"), "from ..models.network import Params\nfrom .base import X"),
        (("dynamics", "sgd", "dynamics"), "from ..flow import AbstractFlow"),
        (("dynamics", "flow"), "from .._types import Key"),
        (("cli", "figures"), "from .. import plot"),
        (("__init__",), "from .simulation import simulate"),
        (("plot",), "import matplotlib.dynamics"),
    ],
)
def test_an_arrow_that_goes_down_is_none(module, source):
    assert not list(wrong_arrows(module, source))


def test_the_drawing_has_every_room_and_counts_its_arrows():
    lines = drawing().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(ROOMS)
    arrows = sum(len(line.split("  ")[-1].split(", ")) for line in lines[1:-1] if "%  _" in line)
    assert 0 < arrows <= int(lines[-1].split()[-2])


def forbidden(source):
    """Calls of print and of JAX's global configuration."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" or called.endswith("config.update"):
                yield called


def test_only_the_command_prints_and_only_configure_configures_jax():
    found = {
        module: calls
        for module, source in SOURCES.items()
        if module[0] != "cli" and (calls := set(forbidden(source)))
    }
    # `has_started` in _errors only probes: it puts back what it has tried.
    update = {"jax.config.update"}
    assert found == {("configuration",): update, ("_errors",): update}
    assert list(forbidden("import jax\njax.config.update('jax_enable_x64', True)\nprint(1)"))


def test_no_file_is_over_400_lines():
    lengths = {module: len(source.splitlines()) for module, source in SOURCES.items()}
    assert {module: length for module, length in lengths.items() if length > 400} == {}


def test_rooms_and_files_are_named_once():
    for names in (ROOMS, *FILES_OF.values()):
        assert len(names) == len(set(names))
    assert set(FILES_OF) <= set(ROOMS)


# Modules of src/ without a test file of their own, each with the reason.
WITHOUT_MIRROR = {
    ("__main__",): "two lines; tests/cli/test_figures.py runs the command",
    ("_types",): "aliases; as_array is seen by every test that counts traces",
    ("_library",): "tests/test_digest.py has functions and objects of libraries beside a user's",
    ("_parts",): "tests/test_digest.py has a way for every kind of thing",
    ("batching", "gpu_kernel"): "tests/closed_forms/test_gpu_step.py and tests/dynamics/sgd/"
    "test_gpu.py run kernels, interpreted",
    ("cli", "errors"): "one class; tests/cli/ sees it wherever the exit status is 2",
    ("closed_forms", "base"): "abstract; tests/problems/test_base.py has an instance of a user's",
    ("closed_forms", "gpu_factor"): "lives in a kernel; test_gpu_step.py holds every solve of it",
    ("closed_forms", "step_integrals"): "abstract; test_pairwise.py and test_banded.py hold the "
    "risks that are made of it, tests/models/test_cubic_step.py the integrals",
    ("dynamics", "base"): "abstract; tests/test_simulation.py has an instance of a user's",
    ("integrators", "diffrax", "integrate"): "tests/integrators/diffrax/test_chord.py and "
    "tests/dynamics/test_gradient_flow.py run it",
    ("integrators", "quadratic_risk"): "abstract; tests/problems/test_quadratic_risks.py has two",
    ("integrators", "swept_state"): "fields only; test_collocation.py runs them",
    ("problems", "penalised"): "abstract; test_separable.py, test_losses.py and test_additive.py "
    "have penalties",
    ("plot",): "tests/cli/test_pictures.py and test_figures.py draw with it",
    ("sweeps", "errors"): "two classes; tests/sweeps/ sees them wherever something is refused",
}


def test_every_module_has_its_mirror_or_a_reason():
    tests = Path(__file__).parent
    for module in SOURCES:
        if module[-1] == "__init__" or module in WITHOUT_MIRROR:
            continue
        mirror = tests.joinpath(*module[:-1], f"test_{module[-1].lstrip('_')}.py")
        assert mirror.exists(), f"{'.'.join(module)} has no {mirror.relative_to(tests)}"
    assert set(WITHOUT_MIRROR) <= set(SOURCES)


def test_a_public_module_lists_public_names_only():
    assert dir(tts) == sorted(tts.__all__)
    for name in ("analyses", "metrics", "plot"):
        module = importlib.import_module(f"tts_jax.{name}")
        names = dir(module)
        assert names == sorted(module.__all__)
        for public in names:
            member = getattr(module, public)
            assert not hasattr(member, "__module__") or member.__module__ == module.__name__


def test_experiments_import_the_public_face_only():
    for path in (ROOT / "experiments").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [name for name in names if name.split(".")[0] == "tts_jax"]
            assert set(inside) <= {"tts_jax", "tts_jax.plot", "tts_jax.metrics"}, path.name
