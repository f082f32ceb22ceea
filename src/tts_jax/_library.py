"""What belongs to a library, which is known by name and version, and what is the user's own."""

import functools
import importlib.metadata
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

_RECORDED = {
    *("jax", "jaxlib", "numpy", "scipy", "optax", "equinox", "diffrax", "optimistix", "lineax"),
    *("jaxtyping", "xarray", "pandas", "tts_jax"),
}
"""Libraries that are known by name alone: a newer one must not make a sweep that goes on another
one. The store of a sweep keeps their versions beside the digest."""

_FOLDERS = ("site-packages", "dist-packages")


def library_of(module: str | None) -> str | None:
    """Return the library that a module belongs to, with its version, or None for the user's own
    code. The name of a module that is not there counts as the user's."""
    top = (module or "").partition(".")[0]
    return top if top in _RECORDED else _library(top, _file(top)) if top else None


def name_in_library(thing: Any) -> str | None:
    """Return the name under which a library has this very thing, or None."""
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    library = library_of(module)
    if library is None or at_name(module, name) is not thing:
        return None
    return f"{library}: {module}.{name}"


def at_name(module: str, name: str) -> Any:
    """Return what a dotted name stands for in a module that has been imported, or None."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _file(top: str) -> str | None:
    module: ModuleType | None = sys.modules.get(top)
    paths = [getattr(module, "__file__", None), *list(getattr(module, "__path__", ()))]
    return next((path for path in paths if path), None)


@functools.lru_cache(maxsize=4096)
def _library(top: str, file: str | None) -> str | None:
    if file is None:
        return top if top in sys.stdlib_module_names else None
    place = Path(file)
    if any(folder in place.parts for folder in _FOLDERS):
        return f"{top} {_version(top)}"
    standard = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return top if any(place.is_relative_to(folder) for folder in standard) else None


def _version(top: str) -> str:
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, ())  # takes a second
        return " ".join(importlib.metadata.version(name) for name in names)
