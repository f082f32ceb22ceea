"""The rooms of the library and the arrows between them, read from the sources.

`python -m tests.import_graph` prints the rooms from the lowest floor to the highest, with their
files and lines, and whom each imports. `test_import_graph.py` holds the arrows to it.
"""

import ast
import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

_SPEC = importlib.util.find_spec("tts_jax")
assert _SPEC is not None
assert _SPEC.origin is not None
LIBRARY = Path(_SPEC.origin).parent

ROOMS = (
    *(
        "_types",
        "_errors",
        "_named",
        "_memory",
        "_numbers",
        "_files",
        "_library",
        "_code",
        "_parts",
    ),
    *("_digest", "_programs", "_sweepable", "progress", "batching"),
    *(
        "configuration",
        "numerics",
        "integrators",
        "models",
        "closed_forms",
        "problems",
        "trajectory",
        "dynamics",
        "metrics",
    ),
    *("simulation", "analyses", "sweeps", "plot", "cli"),
    # The public face and `python -m tts_jax` stand above all rooms.
    *("__init__", "__main__"),
)
"""From the lowest floor to the highest: a room imports from earlier ones only."""

FILES_OF = {
    "batching": (
        *("devices", "sequential", "summation", "vector_lanes", "gathered_cond"),
        *("thread_settings", "threads", "multi_device"),
        *("scalar_program", "gpu_kernel", "gpu_dispatch"),
    ),
    "numerics": (
        *("products", "quadrature", "gram", "symmetric", "banded", "first_root"),
        "first_crossing",
        *("bivariate_normal", "hermite"),
    ),
    "integrators": (
        *("rosenbrock", "step_size", "loop", "passages", "lane_queue", "step_adjoint"),
        "checkpointing",
        *("quadratic_risk", "anderson", "lobatto", "relaxation", "swept_state", "collocation"),
        *("diffrax.chord", "diffrax.rodas5p", "diffrax.integrate", "diffrax.system"),
    ),
    "models": (
        *("cubic_step", "activations", "network", "adapters", "shallow", "additive", "two_layer"),
        *("initialisers", "targets", "contracts"),
    ),
    "closed_forms": (
        *("base", "step_integrals", "pairwise", "banded", "error_norm", "hessian_system"),
        "gradient_system",
        *("gpu_matrix", "gpu_factor", "gpu_step", "pairwise_system", "banded_system"),
        *("pairwise_form", "banded_form", "sgd_padding", "two_layer"),
        *("gaussian_pairs", "gaussian_relu", "gaussian_series", "gaussian_moments"),
    ),
    "problems": (
        *(
            "base",
            "population",
            "losses",
            "penalised",
            "sample",
            "quadratic_risks",
            "separable",
            "affine",
            "model",
        ),
        *("from_model", "empirical", "gaussian", "additive", "recorded_risks", "contracts"),
    ),
    "dynamics": (
        *("base", "rates", "autodiff_system", "rated_system", "first_try", "flow", "recommend"),
        *("gradient_flow", "reduced_flow"),
        *(
            "limit_flow",
            "passages",
            "arrivals",
            "sgd.samples",
            "sgd.run_spec",
            "sgd.loop",
            "sgd.one_run",
        ),
        *("sgd.gpu", "sgd.many_runs", "sgd.checkpoints", "sgd.diagnostics", "sgd.forward_only"),
        "sgd.dynamics",
    ),
    "sweeps": (
        *("errors", "study.grid", "study.values", "study.starts", "study.tables"),
        *("study.formats", "study.data", "study.study", "study.toml"),
        *("study.comparison", "execution.structure", "execution.variables", "execution.cost"),
        *("execution.layout", "execution.plan", "execution.runner", "execution.local"),
        *("execution.dask", "storage.coordinates", "storage.arrays", "storage.root"),
        *(
            "storage.contents",
            "storage.store",
            "storage.creation",
            "storage.opening",
            "storage.report",
            "sweep",
        ),
    ),
}
"""The files of a room, from the lowest to the highest. An entry may be a package within it."""


def files() -> dict[tuple[str, ...], Path]:
    """Every source file of the library by its module, such as ("dynamics", "flow")."""
    found = {}
    for file in sorted(LIBRARY.rglob("*.py")):
        module = tuple(str(file.relative_to(LIBRARY).with_suffix("")).split("/"))
        if module[0] != "_experiments":  # shipped beside it, not part of it
            found[module] = file
    return found


def imported(module: tuple[str, ...], source: str) -> Iterator[str]:
    """Dotted names that a module of the library imports, absolute, wherever they stand."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["tts_jax", *module][: len(module) + 1 - node.level] if node.level else []
            parts = [*base, *([node.module] if node.module else [])]
            # What is imported may be a name in the module or a module in the package.
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def inside(parts: list[str] | tuple[str, ...]) -> list[str]:
    """The parts of a dotted name of this library, without the library's own name."""
    return list(parts[1:]) if parts and parts[0] == "tts_jax" else []


def floor(order: tuple[str, ...], path: list[str]) -> int | None:
    """The place in an order of files that a path below a room belongs to."""
    for length in range(len(path), 0, -1):
        name = ".".join(path[:length])
        if name in order:
            return order.index(name)
    return None


def wrong_arrows(module: tuple[str, ...], source: str) -> Iterator[str]:
    """What a module must not import, as readable complaints."""
    room = module[0]
    for name in imported(module, source):
        parts = name.split(".")
        if "experiments" in parts or "_experiments" in parts:
            yield f"{'.'.join(module)} imports {name}"
        path = inside(parts)
        if not path:
            continue
        other = path[0] if path[0] in ROOMS else "__init__"
        if other != room:
            if ROOMS.index(other) >= ROOMS.index(room):
                yield f"{'.'.join(module)} imports {name}, from a room above"
            continue
        order = FILES_OF.get(room, ())
        here, there = floor(order, list(module[1:])), floor(order, path[1:])
        if here is not None and there is not None and there > here:
            yield f"{'.'.join(module)} imports {name}, from a file above it in its room"


def arrows() -> dict[str, set[str]]:
    """For every room, those that it imports from."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, file in files().items():
        for name in imported(module, file.read_text()):
            path = inside(name.split("."))
            if path and path[0] in ROOMS and path[0] != module[0]:
                found[module[0]].add(path[0])
    return found


def drawing() -> str:
    """The rooms from the lowest to the highest, their size, and whom they import."""
    sizes: dict[str, list[int]] = defaultdict(list)
    for module, file in files().items():
        sizes[module[0]].append(len(file.read_text().splitlines()))
    total, whom = sum(map(sum, sizes.values())), arrows()
    lines = [f"{'room':<14}{'files':>6}{'lines':>7}{'share':>7}  imports from"]
    for room in ROOMS:
        below = [other for other in ROOMS if other in whom[room]]
        lines.append(
            f"{room:<14}{len(sizes[room]):>6}{sum(sizes[room]):>7}"
            f"{sum(sizes[room]) / total:>7.0%}  {', '.join(below)}"
        )
    count = sum(map(len, whom.values()))
    return "\n".join([*lines, f"{len(sizes)} rooms, {total} lines, {count} arrows"])


if __name__ == "__main__":
    print(drawing())
    wrong = [
        complaint
        for module, file in files().items()
        for complaint in wrong_arrows(module, file.read_text())
    ]
    print("\n".join(wrong) if wrong else "no arrow goes up")
