"""Every Python block of the documentation runs, the blocks of a file in order in one namespace.

A block that is not to be run has another info string than `python`, such as `text` or `bash`.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The code of the blocks marked `python`, each with the number of its first line."""
    return [
        (text.count("\n", 0, fence.start(3)) + 1, fence[3])
        for fence in FENCE.finditer(text)
        if fence[2].strip() == "python"
    ]


def run_blocks(text: str, name: str) -> int:
    """Run the blocks, with the lines of a traceback counted as in the page; return how many."""
    namespace = {"__name__": re.sub(r"\W", "_", name)}
    blocks = python_blocks(text)
    for line, code in blocks:
        exec(compile("\n" * (line - 1) + code, name, "exec"), namespace)
    return len(blocks)


def page_case(page: Path):
    """A page as a case of a test: the README with every run, the others with the thorough ones."""
    marks = () if page.parent == ROOT else pytest.mark.thorough
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("page", [page_case(page) for page in PAGES])
def test_python_blocks_run(page: Path):
    if page.exists():
        run_blocks(page.read_text(encoding="utf-8"), str(page))


def test_docs_hold_python_blocks():
    pages = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
    assert sum(len(python_blocks(text)) for text in pages.values()) > 0
    # A mistyped info string must not switch a block off unseen.
    info = {fence[2].strip() for text in pages.values() for fence in FENCE.finditer(text)}
    assert info <= {"python", "text", "bash"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nassert 1 == 2\n```\n", AssertionError),
        ("Text.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n", AssertionError),
        ("```python\nunknown\n```\n", NameError),
        ("```python\nx = = 1\n```\n", SyntaxError),
    ],
    ids=["assert", "second-block", "name", "syntax"],
)
def test_broken_block_fails(text: str, error: type[Exception]):
    with pytest.raises(error):
        run_blocks(text, "broken.md")


def test_other_blocks_are_left_alone():
    text = "```bash\nmake test\n```\n\n```text\nno code\n```\n\n```\nnone either\n```\n"
    assert run_blocks(text, "other.md") == 0


def test_blocks_share_a_namespace_and_keep_line_numbers():
    text = "# Title\n\n```python\nx = 1\n```\n\n```python\nassert x == 1\n```\n"
    assert python_blocks(text) == [(4, "x = 1\n"), (8, "assert x == 1\n")]
    assert run_blocks(text, "shared.md") == 2
