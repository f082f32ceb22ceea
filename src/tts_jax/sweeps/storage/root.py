"""The root of a store: the one file that tells readers what all arrays are, and its second copy.

It has a checksum over everything in it: the study, a hash of the coordinates, and the metadata of
the arrays. What does not agree with its checksum is not believed.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..._files import whole
from ..errors import SweepError

FORMAT = 2

FILE = "zarr.json"
_COPY = ".zarr.json.copy"

_TABLES = ("study", "layout", "statuses", "sessions")
"""Attributes that are tables. They stand there as JSON, so that a file of any format can hold
them, such as netCDF."""

PARTIAL = re.compile(r"(?:zarr|c|\d+)\.[0-9a-f]{32}\.partial|\.tts-[0-9a-f]{16}-[0-9a-f]{8}")
"""Names of files that Zarr, and `whole`, write before they get their own."""


class Root(NamedTuple):
    """What the root of a store says: its attributes, tables as such, and the metadata of every
    array by name."""

    attributes: dict[str, Any]
    arrays: dict[str, dict[str, Any]]

    def document(self) -> dict[str, Any]:
        """Return the content of the file, with its checksum."""
        attributes = {
            name: json.dumps(value) if name in _TABLES else value
            for name, value in self.attributes.items()
        }
        metadata = {"kind": "inline", "must_understand": False, "metadata": self.arrays}
        document = {
            "attributes": attributes | {"format": FORMAT},
            "zarr_format": 3,
            "node_type": "group",
            "consolidated_metadata": metadata,
        }
        document["attributes"]["checksum"] = _checksum(document)
        return document


def write_root(folder: Path, root: Root) -> None:
    """Write the root and its copy. No reader sees half of one, and at any moment one is whole."""
    document = root.document()
    write_json(folder / FILE, document)
    write_json(folder / _COPY, document)


def read_root(folder: Path, *, mend: bool = False) -> Root:
    """Read the root of a store. If it is damaged and `mend`, its copy is what counts.

    **Raises:** `SweepError` if there is none, or it is damaged.
    """
    document, copy = _json(folder / FILE), _json(folder / _COPY)
    if _is_whole(document):
        return _root(document, folder)
    if _is_whole(copy):
        if mend:
            return _root(copy, folder)
        raise damaged(folder, f"{FILE} has been altered")
    attributes = _attributes(document)
    if "study" in attributes and attributes.get("format") != FORMAT:
        raise SweepError(
            f"{folder} was written by another version of tts_jax, as format "
            f"{attributes.get('format')!r}, and this one reads format {FORMAT}: take another "
            "folder, or read it by `xarray.open_zarr`, which checks nothing."
        )
    if (folder / _COPY).exists() or "study" in attributes:
        raise SweepError(
            f"{folder} cannot be read: both {FILE} and its copy {_COPY} have been altered. Put "
            "back one of them, from where the store has been copied to, or sweep into another "
            "folder."
        )
    raise SweepError(f"{folder} holds no sweep.")


def resuming(folder: Path, study: Any) -> str:
    """Return what a user does to go on with a sweep, given the description of its study.

    What is not of this package stands there by a hash, and no file can bring it back; so do
    samples, unless the study names the file that has them.
    """
    text = json.dumps(study)
    if '"digest":' in text or ('"sha256":' in text and "data" not in study):
        return "another call of `tts.sweep` with the same arguments"
    return f"`tts-jax resume {shlex.quote(str(folder))}`"


def damaged(folder: Path, what: str) -> SweepError:
    """Return the error for a store of which something is damaged that can be mended."""
    study = read_root(folder, mend=True).attributes["study"]
    return SweepError(
        f"{folder} is damaged ({what}); {resuming(folder, study)} makes it whole again."
    )


def check_names(names: Iterable[Any], folder: Path) -> None:
    """Raise `SweepError` unless each is the plain name of a folder, that leads nowhere else."""
    for name in names:
        is_plain = isinstance(name, str) and re.fullmatch(r"[^./\\\0][^/\\\0]*", name)
        if not is_plain or name == FILE:
            raise SweepError(
                f"{folder} has an array of the name {name!r}, which can be no folder in it."
            )


def write_json(file: Path, content: Any) -> None:
    """Write a file so that no reader sees half of it."""
    with whole(file) as half:
        half.write_text(json.dumps(content, indent=1))


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except PermissionError as error:
        raise SweepError(f"cannot read {file}: {error.strerror}.") from error
    except (OSError, ValueError, RecursionError):
        return None


def _attributes(document: Any) -> Mapping[str, Any]:
    found = document.get("attributes") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _is_whole(document: Any) -> bool:
    attributes = _attributes(document)
    if "checksum" not in attributes or attributes.get("format") != FORMAT:
        return False
    return attributes["checksum"] == _checksum(document)


def _checksum(document: dict[str, Any]) -> str:
    others = {k: v for k, v in document["attributes"].items() if k != "checksum"}
    text = json.dumps(document | {"attributes": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _root(document: dict[str, Any], folder: Path) -> Root:
    """The root in a document that agrees with its checksum, which anybody can make."""
    try:
        attributes = dict(document["attributes"])
        attributes |= {name: json.loads(attributes[name]) for name in _TABLES}
        arrays = dict(document["consolidated_metadata"]["metadata"])
        are_arrays = all(metadata["node_type"] == "array" for metadata in arrays.values())
        if not are_arrays or not all(isinstance(attributes[n], dict) for n in ("study", "layout")):
            raise ValueError("A group in a group, or no tables.")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SweepError(f"{folder} holds no sweep: {FILE} lacks what tts_jax writes.") from error
    check_names(arrays, folder)
    return Root(attributes, arrays)
