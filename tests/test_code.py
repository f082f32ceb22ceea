"""What code says does not depend on how Python compiles it, and is that of the code that runs."""

import importlib.util
import linecache
import types

import pytest

from tts_jax._code import meaning_of

SOURCE = '''
K = 2.0

def twice(x: float, *, more=1.0) -> float:
    """Twice."""
    kept: float = K * x  # K is two
    counts[0] += 1
    return kept + more.real + helper.sub.value(lambda y: (y, K))

pair = [lambda x: x + 1, lambda x: x - 1], lambda x: (lambda y: y + x)
'''


def loaded(text, file):
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("users", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_source(text):
    space = {"__name__": "users"}
    exec(text, space)
    return types.SimpleNamespace(**space)


def test_it_is_the_syntax_tree_without_what_does_nothing(tmp_path):
    """Written out, so that a Python whose trees look another way shows."""
    text = "def f(x, *more, k=1):\n    'Doc.'\n    return -x[1:] if k else f'{x}'\n"
    code = loaded(text, tmp_path / "a.py").f.__code__
    x, one = ("Name", ("id", "x")), ("Constant", "int", "1")
    part = ("Subscript", ("value", x), ("slice", ("Slice", ("lower", one))))
    minus = ("UnaryOp", ("op", ("USub",)), ("operand", part))
    form = ("JoinedStr", ("values", (("FormattedValue", ("value", x), ("conversion", -1)),)))
    choice = ("IfExp", ("test", ("Name", ("id", "k"))), ("body", minus), ("orelse", form))
    names = {name: ("arg", ("arg", name)) for name in ("x", "more", "k")}
    arguments = (
        "arguments",
        ("args", (names["x"],)),
        ("vararg", names["more"]),
        ("kwonlyargs", (names["k"],)),
        ("kw_defaults", (one,)),
    )
    assert meaning_of(code).text == repr((arguments, (("Return", ("value", choice)),)))


def test_what_it_reads(tmp_path):
    module = loaded(SOURCE, tmp_path / "a.py")
    found = meaning_of(module.twice.__code__)
    assert found.reads == (("K",), ("helper", "sub", "value"))
    assert "Twice" not in found.text
    # Without the source nothing tells which attribute a name is read for, and what is only written.
    assert meaning_of(without_source(f"\n{SOURCE}").twice.__code__).reads == (
        ("K",),
        ("counts",),
        ("helper",),
    )


@pytest.mark.parametrize("load", [loaded, lambda text, file: without_source(f"\n\n{text}")])
def test_lambdas_of_one_line_are_told_apart(load, tmp_path):
    (more, less), outer = load(SOURCE, tmp_path / "a.py").pair
    inner = outer(1.0)
    assert len({meaning_of(f.__code__).text for f in (more, less, outer, inner)}) == 4
    assert meaning_of(inner.__code__).reads == (("x",),)


@pytest.mark.parametrize("change", ["    '''Twice.'''\n", "\n\n", "    # a comment\n"])
def test_without_the_source_docstrings_and_lines_do_not_count_either(change):
    text = "def f(x):\n    y = x + 1\n    return [z for z in (x, y) if z in {1, 2}]\n"
    first, second = text, text.replace("    y =", f"{change}    y =")
    texts = [meaning_of(without_source(t).f.__code__).text for t in (first, second)]
    assert texts[0] == texts[1]
    other = without_source(text.replace("x + 1", "x + 2")).f
    assert meaning_of(other.__code__).text != texts[0]


def test_a_file_that_has_changed_is_not_taken_for_the_code_that_runs(tmp_path):
    file = tmp_path / "a.py"
    text = "def f(x):\n    return x + 1\n"
    old = loaded(text, file).f
    before = meaning_of(loaded(text, tmp_path / "b.py").f.__code__)
    file.write_text(text.replace("+ 1", "+ 2"))
    linecache.clearcache()
    new = loaded(text.replace("+ 1", "+ 22"), file).f
    assert meaning_of(new.__code__).text not in (before.text, meaning_of(old.__code__).text)
    assert "22" in meaning_of(new.__code__).text


def test_what_is_imported_inside(tmp_path):
    text = "def f():\n    import a.b as c\n    from ..d import e\n    return c, e\n"
    found = meaning_of(loaded(text, tmp_path / "a.py").f.__code__)
    assert found.imports == ((0, "a.b", ""), (2, "d", "e"))
