"""Small faults put into source text, one at a time: what `mutation.py` asks the tests to find."""

from __future__ import annotations

import ast
import copy
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
PLAIN = (ast.Name, ast.Attribute, ast.Call, ast.NamedExpr)
"""Conditions that have no part to be mutated: they are negated."""
LEAVES = (ast.Raise, ast.Return, ast.Continue, ast.Break)
UNTOLD = {"strict", "slots", "kw_only", "frozen", "repr", "daemon", "stacklevel"}
"""Arguments that change nothing a test should look at."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: bytes `start` to `end` of a file are replaced by `text`."""

    file: str
    """From src/baffle."""
    line: int
    lines: tuple[int, int]
    """First and last of its statement, or of what stands before the statement's body."""
    inside: bool
    """Whether it is in a function, so that the lines are reached only by who calls it."""
    kind: str
    start: int
    end: int
    text: str

    def put(self, source: bytes) -> bytes:
        """Return the file with the fault."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def id(self, source: bytes) -> str:
        """Return a name that the same fault in the same file has again."""
        told = f"{self.file}:{self.start}:{self.end}:{self.text}".encode()
        return hashlib.sha256(told + source).hexdigest()[:16]

    def diff(self, source: bytes) -> list[str]:
        """Return the lines that differ, each with its sign."""
        lines = difflib.unified_diff(
            source.decode().splitlines(), self.put(source).decode().splitlines(), lineterm="", n=0
        )
        return [line for line in lines if line[:3] not in ("---", "+++") and not line.startswith("@@")]


def mutants(file: str, source: bytes) -> list[Mutant]:
    """Return all faults of a file that compile, in the order of its text."""
    found = [mutant for mutant in _Maker(file, source).made() if mutant.put(source) != source]
    found = [mutant for mutant in found if _compiles(mutant.put(source))]
    return sorted(set(found), key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def _compiles(source: bytes) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class _Maker:
    def __init__(self, file: str, source: bytes) -> None:
        self.file = file
        self.tree = ast.parse(source)
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))

    def made(self) -> Iterator[Mutant]:
        yield from self._below(self.tree, (1, 1), inside=False)

    def _mutant(self, node: ast.AST, kind: str, new: ast.AST | str, lines: tuple[int, int], inside: bool) -> Mutant:
        text = new if isinstance(new, str) else ast.unparse(new)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.Name):
            text = f"({text})"
        start = self.starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        end = self.starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]
        return Mutant(self.file, node.lineno, lines, inside, kind, start, end, text)  # type: ignore[attr-defined]

    def _below(self, node: ast.AST, lines: tuple[int, int], *, inside: bool) -> Iterator[Mutant]:
        for child in ast.iter_child_nodes(node):
            if _left_alone(node, child):
                continue
            here = _lines(child) if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case) else lines
            within = inside or (isinstance(node, ast.FunctionDef | ast.Lambda) and child is not node.args)
            for kind, new in _faults(child):
                yield self._mutant(child, kind, new, here, within)
            if isinstance(child, ast.If | ast.While) and isinstance(child.test, PLAIN):
                yield self._mutant(child.test, "condition", ast.UnaryOp(ast.Not(), child.test), here, within)
            yield from self._below(child, here, inside=within)


def _lines(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    first = node.pattern.lineno if isinstance(node, ast.match_case) else node.lineno
    body = getattr(node, "body", None)
    return first, max(first, body[0].lineno - 1) if body else getattr(node, "end_lineno", None) or first


def _left_alone(parent: ast.AST, child: ast.AST) -> bool:
    """Return whether what a node says is for people, for types, or of no effect that counts."""
    if isinstance(child, ast.keyword) and child.arg in UNTOLD:
        return True
    if isinstance(parent, ast.FunctionDef | ast.ClassDef) and child in parent.decorator_list:
        return True
    if isinstance(parent, ast.ClassDef) and isinstance(child, ast.keyword):
        return True
    if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
        return True
    if isinstance(child, ast.Assign) and "__all__" in ast.unparse(child.targets[0]):
        return True
    if child is getattr(parent, "returns", None) or child is getattr(parent, "annotation", None):
        return not any(isinstance(node, ast.Call) for node in ast.walk(child))
    return isinstance(child, ast.JoinedStr) or isinstance(parent, ast.Raise)


def _faults(node: ast.AST) -> Iterator[tuple[str, ast.AST | str]]:
    match node:
        case ast.stmt():
            yield from _of_statement(node)
        case ast.Compare():
            yield from _of_comparison(node)
        case ast.BoolOp():
            yield "and/or", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        case ast.BinOp() if not _of_types(node):
            yield "arithmetic", _with(node, op=COMPUTED.get(type(node.op), ast.Add)())
        case ast.UnaryOp(op=ast.Not() | ast.USub()) if not isinstance(node.operand, ast.Constant):
            yield "sign", node.operand
        case ast.IfExp():
            yield "condition", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.Constant(value=value):
            yield from _of_constant(value)
        case ast.Call(func=ast.Name(id=name)) if name in SWAPPED:
            yield "call", _with(node, func=ast.Name(SWAPPED[name]))


def _of_comparison(node: ast.Compare) -> Iterator[tuple[str, ast.AST]]:
    for at, operator in enumerate(node.ops):
        for other in COMPARED[type(operator)]:
            yield "comparison", _with(node, ops=[*node.ops[:at], other(), *node.ops[at + 1 :]])


def _of_constant(value: object) -> Iterator[tuple[str, str]]:
    match value:
        case bool():
            yield "boolean", str(not value)
        case int():
            yield "constant", str(value + 1)
            yield "constant", str(value - 1)
        case float():
            yield "constant", repr(2 * value or 1.0)


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, ast.AST | str]]:
    match node:
        case ast.If():
            if not node.orelse and all(isinstance(inner, LEAVES) for inner in node.body):
                yield "guard deleted", "pass"
        case ast.Raise() | ast.Break() | ast.Continue():
            yield "leaving deleted", "pass"
        case ast.Expr(value=ast.Call()):
            yield "call deleted", "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant) or value.value:
            yield "return of None", "return None"
        case ast.AugAssign():
            yield "assignment deleted", "pass"
        case ast.Assign() if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            yield "assignment deleted", "pass"


def _with(node: ast.AST, **changes: object) -> ast.AST:
    made = copy.copy(node)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def _of_types(node: ast.BinOp) -> bool:
    """Return whether it is a union of types."""

    def named(side: ast.expr) -> bool:
        match side:
            case ast.Constant(value=None):
                return True
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return name[:1].isupper() or name in {"int", "float", "str", "bytes", "bool", "list", "dict", "tuple"}
            case ast.Subscript():
                return named(side.value)
            case ast.BinOp():
                return _of_types(side)
        return False

    return isinstance(node.op, ast.BitOr) and named(node.left) and named(node.right)
