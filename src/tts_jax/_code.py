"""What the code of a function says and reads, whatever its layout, comments and Python version.

Where the source of a function is at hand, that is its syntax tree without what does nothing:
positions, comments, docstrings and annotations. Where it is not, it is the instructions of Python's
virtual machine, which another version of Python writes in another way.
"""

import ast
import dis
import functools
import linecache
import sys
import warnings
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

Chain = tuple[str, ...]
"""A name that is read, and the attributes that are read of it at once: `a.b.c`."""


class Meaning(NamedTuple):
    """What code says, as text, the names from outside that it reads, and the imports inside it."""

    text: str
    reads: tuple[Chain, ...]
    imports: tuple[tuple[int, str, str], ...]
    """The level, the module and the name of each import, as in `from ..module import name`; no name
    for a whole module."""


@functools.lru_cache(maxsize=4096)
def meaning_of(code: CodeType) -> Meaning:
    """Return what the code of a function means."""
    node = _node_of(code)
    if node is None:
        names = {*_globals_of(code), *code.co_freevars} - {"__name__"}
        chains = tuple((name,) for name in sorted(names))
        return Meaning(repr(_instructions(code)), chains, ())
    reader = _Reader()
    for statement in _body(node):
        reader.visit(statement)
    outside = {*_globals_of(code), *code.co_freevars}
    if "__class__" in outside:  # read by `super()`, which names nothing
        reader.reads.add(("__class__",))
    reads = tuple(sorted(chain for chain in reader.reads if chain[0] in outside))
    return Meaning(
        repr((_form(node.args), _form(_body(node)))), reads, tuple(sorted(reader.imports))
    )


class _Reader(ast.NodeVisitor):
    """Collects the names whose values a function reads, not those that it only writes to."""

    def __init__(self):
        self.reads: set[Chain] = set()
        self.imports: set[tuple[int, str, str]] = set()

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.reads.add((node.id,))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        attributes, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            attributes.append(base.attr)
            base = base.value
        if not isinstance(base, ast.Name):
            self.visit(base)
        elif isinstance(node.ctx, ast.Load):
            self.reads.add((base.id, *reversed(attributes)))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        # `counts[0] += 1` and `found[key] = x` change what they name, and use it for nothing else.
        if isinstance(node.ctx, ast.Load) or not isinstance(node.value, ast.Name):
            self.visit(node.value)
        self.visit(node.slice)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for part in (*node.decorator_list, node.args, *node.body):
            self.visit(part)

    def visit_arg(self, node: ast.arg) -> None:
        """Look at no annotation."""

    def visit_Import(self, node: ast.Import) -> None:
        self.imports |= {(0, alias.name, "") for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.imports |= {(node.level, node.module or "", alias.name) for alias in node.names}


_IGNORED = {"ctx", "kind", "type_comment", "annotation", "returns"}


def _form(node: Any, *, in_class: bool = False) -> Any:
    """Return a syntax tree as nested tuples, without what does nothing."""
    if isinstance(node, list):
        return tuple(
            _form(part, in_class=in_class) for part in node if not _is_idle(part, in_class)
        )
    if isinstance(node, ast.Constant):
        return ("Constant", type(node.value).__name__, repr(node.value))
    if isinstance(node, ast.AnnAssign) and not in_class:
        node = ast.Assign([node.target], node.value)  # pyright: ignore[reportArgumentType]
    if not isinstance(node, ast.AST):
        return node
    inside = isinstance(node, ast.ClassDef)  # there annotations make the fields of dataclasses
    ignored = _IGNORED - {"annotation"} if isinstance(node, ast.AnnAssign) else _IGNORED
    fields = [
        (name, _form(value, in_class=inside))
        for name, value in ast.iter_fields(node)
        if name not in ignored and value is not None and value != []
    ]
    return (type(node).__name__, *fields)


def _is_idle(node: Any, in_class: bool) -> bool:
    """Return whether a statement does nothing, as a docstring does."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    declares = isinstance(node, ast.AnnAssign) and node.value is None and not in_class
    return declares or isinstance(node, ast.Pass)


def _body(node: Any) -> list[Any]:
    return [ast.Return(node.body)] if isinstance(node, ast.Lambda) else node.body


def _node_of(code: CodeType) -> Any:
    """Return the syntax tree that code was compiled from, or None.

    The tree is compiled again and must give the very code: a file may have changed since.
    """
    for _ in range(2):
        lines = linecache.getlines(code.co_filename)
        found = _functions("".join(lines), code.co_filename).get(code) if lines else None
        if found is not None:
            return found
        linecache.checkcache(code.co_filename)
    return None


@functools.lru_cache(maxsize=64)
def _functions(text: str, filename: str) -> dict[CodeType, Any]:
    """Return the syntax trees of all functions of a file by their code."""
    try:
        tree = ast.parse(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = compile(tree, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return {}
    nodes: dict[tuple[int, str], list[Any]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            nodes.setdefault((node.lineno, "<lambda>"), []).append(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            nodes.setdefault((first, node.name), []).append(node)
    found = {}
    for code in _codes(whole):
        here = nodes.get(_place(code), [])
        if here:
            found[code] = here[0] if len(here) == 1 else max(here, key=lambda n: _fit(n, code))
    return found


def _place(code: CodeType) -> tuple[int, str]:
    return code.co_firstlineno, code.co_name


def _fit(node: Any, code: CodeType) -> tuple[int, int]:
    """Return how well code fits to one of several functions that begin on its line.

    It is the smallest whose body has all instructions inside: lambdas may stand in lambdas.
    """
    body = node.body if isinstance(node, ast.Lambda) else node
    begin, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    places = [place for place in code.co_positions() if None not in place]
    inside = [p for p in places if begin <= (p[0], p[2]) and (p[1], p[3]) <= end]
    return len(inside), -len(ast.unparse(body))


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _globals_of(code: CodeType) -> set[str]:
    """Return the global names that code, and the functions inside it, read."""
    return {
        instruction.argval
        for part in (code, *_codes(code))
        for instruction in dis.get_instructions(part)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    }


def _instructions(code: CodeType) -> Any:
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    steps = tuple(
        (step.opname, _constant(step.argval))
        for step in dis.get_instructions(code)
        if step.opname not in ("RESUME", "CACHE", "NOP")
    )
    return (sys.version_info[:2], code.co_flags & 0x0C, arguments, steps)


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _instructions(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    return type(value).__name__, repr(value)
