"""Wrong calls over the whole public face, made at random: each names the argument that is wrong.

Nothing is compiled, and no network is traced: the activation of `wrong_calls` fails if it is.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from small_studies import FLOW_STUDY, SGD_STUDY
from wrong_calls import CALLS, Call
from wrong_values import word

from tts_jax import cli

# JAX says so of a generator before it is refused.
pytestmark = pytest.mark.filterwarnings("ignore:Python iterable type:DeprecationWarning")

COMPILED: list[str] = []
HAND_ON = ("figure", "staircase", "neurons")
"""What hands names that it does not know to matplotlib."""


def note(event: str, seconds: float, **details: object) -> None:
    del seconds, details
    if "compile" in event and "trace" not in event:
        COMPILED.append(event)


@pytest.fixture(scope="module", autouse=True)
def _compilations() -> Iterator[None]:
    jax.monitoring.register_event_duration_secs_listener(note)
    yield
    jax.monitoring.clear_event_listeners()


def complaint(call: Call, arguments: dict, name: str) -> str | None:
    """What is wrong about how a wrong call ends, or None."""
    COMPILED.clear()
    try:
        call.function(**arguments)
    except (ValueError, TypeError) as error:
        said = str(error)
        if not re.search(rf"[`']{re.escape(name)}[\W]", said):
            return f"{type(error).__name__}: {said}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    else:
        return "no error"
    return f"compiled {COMPILED}" if COMPILED else None


def wrong_argument(rng: np.random.Generator) -> tuple[str, str, dict]:
    """A call, an argument of it, and arguments of which this one has a wrong value."""
    title = str(rng.choice(list(CALLS)))
    call = CALLS[title]
    name = str(rng.choice(list(call.wrong)))
    return title, name, call.right | {name: call.wrong[name](rng)}


def wrong_name(rng: np.random.Generator) -> tuple[str, str, dict]:
    """A call with an argument that there is none of."""
    title = str(rng.choice([title for title in CALLS if title not in HAND_ON]))
    right = CALLS[title].right
    name = "".join(rng.permutation(list(str(rng.choice([*CALLS[title].wrong]))))) + "_"
    return title, name, right | {name: 1.0}


def complaints(seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        title, name, arguments = wrong_argument(rng) if seed % 10 else wrong_name(rng)
        said = complaint(CALLS[title], arguments, name)
        if said is not None:
            found.append(f"{seed}: {title}({name}={arguments[name]!r}): {said}")
    return found


@pytest.mark.thorough
def test_every_right_call_is_right_but_for_what_fails_when_it_is_traced():
    """So that a wrong value alone is what a wrong call is refused for."""
    for title, call in CALLS.items():
        if title == "read_study":  # there is no such file
            continue
        try:
            call.function(**call.right)
        except AssertionError as error:
            assert str(error) == "reached the activation", title  # noqa: PT017


def test_a_wrong_call_names_the_argument():
    assert "\n".join(complaints(range(500))) == ""


@pytest.mark.thorough
def test_ten_thousand_wrong_calls_name_the_argument():
    assert "\n".join(complaints(range(500, 10_500))) == ""


def words_of(rng: np.random.Generator, folder: str) -> tuple[list[str], str]:
    """Wrong words for the command, and what its answer must name."""
    other = word(rng).strip("-. ") + "q"
    missing = f"{folder}/{other.replace(' ', '')}"
    choices = [
        ([other], other),
        (["status", missing], missing),
        (["resume", missing], missing),
        (["plot", missing], missing),
        (["plot", folder, "--kind", other], "kind"),
        (["plot", folder, "--below", other], "below"),
        (["export", missing, "x.nc"], missing),
        (["export", folder, folder], folder),
        (["sweep", missing], missing),
        (["sweep", missing, f"--{other.replace(' ', '')}"], other.replace(" ", "")),
        (["figures", other], other),
        (["figures", "--only", other], "only"),
        (["status"], "folder"),
    ]
    return choices[rng.integers(len(choices))]


_WRONG_TOML = (*('"far"', "true", "-1.5", "[]", "{}", "nan", "inf", "1979-05-27", '["a"]'), "-1")


def wrong_study(rng: np.random.Generator) -> tuple[str, str]:
    """A study with one value that is wrong, and its name."""
    lines = str(rng.choice([SGD_STUDY, FLOW_STUDY])).splitlines()
    places = [i for i, line in enumerate(lines) if "=" in line]
    place = places[rng.integers(len(places))]
    name = lines[place].split("=")[0].strip()
    lines[place] = f"{name} = {_WRONG_TOML[rng.integers(len(_WRONG_TOML))]}"
    return "\n".join(lines), name


def study_complaints(seeds: range, file: Path) -> list[str]:
    """How wrong studies end that are not refused with the name of what is wrong."""
    found = []
    for seed in seeds:
        text, name = wrong_study(np.random.default_rng(seed))
        file.write_text(text)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                code = cli.main(["sweep", str(file), "--dry-run", "--out", str(file.parent / "s")])
        except BaseException as error:
            found.append(f"{text}: {type(error).__name__}: {error}")
            continue
        # Times that fall are those of `taus`, whatever number of its table is wrong, and without
        # jumps there are too many `values`.
        named = re.search(rf"[`.']({name}|taus|values)[`'\].]", said.getvalue())
        if code != 2 or named is None:
            found.append(f"{seed} {name}: {text}: ended with {code}: {said.getvalue()}")
    return found


def test_a_wrong_study_is_refused_with_what_is_wrong(tmp_path):
    assert "\n".join(study_complaints(range(100), tmp_path / "study.toml")) == ""


@pytest.mark.thorough
def test_a_thousand_wrong_studies_are_refused_with_what_is_wrong(tmp_path):
    assert "\n".join(study_complaints(range(100, 1100), tmp_path / "study.toml")) == ""


def command_complaints(seeds: range, folder: str) -> list[str]:
    found = []
    for seed in seeds:
        words, name = words_of(np.random.default_rng(seed), folder)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                code = cli.main(words)
        except SystemExit as error:  # of the parser
            code = error.code
        except BaseException as error:
            found.append(f"{words}: {type(error).__name__}: {error}")
            continue
        plain = re.sub(r"[│\s]", "", said.getvalue()).lower()
        if code != 2 or "Traceback" in said.getvalue():
            found.append(f"{words}: ended with {code}: {said.getvalue()}")
        elif re.sub(r"\s", "", name).lower() not in plain:
            found.append(f"{words}: does not name {name}: {said.getvalue()}")
    return found


def test_a_wrong_command_names_what_is_wrong(tmp_path):
    assert "\n".join(command_complaints(range(60), str(tmp_path))) == ""


@pytest.mark.thorough
def test_a_thousand_wrong_commands_name_what_is_wrong(tmp_path):
    assert "\n".join(command_complaints(range(1000), str(tmp_path))) == ""
