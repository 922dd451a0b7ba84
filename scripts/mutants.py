"""Change one thing of a module at a time and say which changes its tests do not notice.

`mutants.py pytest_egress/ledger/ledger.py tests/unit/ledger/test_verdict.py ...`: each change is made in a copy of the
repository, and the tests run there in a process of their own, since the package is a plugin of the pytest that would
look at it.
A change that survives is either equivalent to what it replaces, or a test is missing.

A module that removes things removes those of others when it is changed. So the tests have a folder for temporary files
of their own, and no engine unless `DOCKER_HOST` names one: it must be one that nobody else uses.

Not mutmut 3.8: it makes its changes in a pytest that runs already. So code that runs while a module is imported counts
as untested, functions with decorators are left out, and tests that start pytest themselves find no plugin. It is five
times as fast. Not cosmic-ray 8.7: it takes no statement, text or result away, and would show 4 of the 14 changes that
survive here in `base/globs.py` and `engine/folder.py`.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SLACK_SECONDS = 20.0  # a change may make the tests wait; thrice their own time and this, and it counts as noticed
NO_ENGINE = "unix:///nonexistent/docker.sock"
SWAPPED: dict[type, str] = {
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.And: "or",
    ast.Or: "and",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A module with one change in it."""

    line: int
    before: str
    after: str
    source: bytes


class Mutation:
    """All changes of one module, by the places of its syntax tree (`ast`, whose columns count bytes)."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        """Every change, in the order of the source."""
        for node in ast.walk(without_words(ast.parse(self.source))):
            yield from self._of_expression(node)
            yield from self._of_statement(node)

    def _of_expression(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare(left=left, ops=ops, comparators=others):
                for operator, before, after in zip(ops, [left, *others], others, strict=False):
                    yield self._between(before, after, SWAPPED[type(operator)])
            case ast.BoolOp(op=operator, values=values):
                for before, after in itertools.pairwise(values):
                    yield self._between(before, after, SWAPPED[type(operator)])
            case ast.BinOp(op=operator, left=left, right=right) if type(operator) in SWAPPED:
                yield self._between(left, right, SWAPPED[type(operator)])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._replaced(node, self._text(operand))
            case ast.Constant(value=bool(value)):
                yield self._replaced(node, repr(not value))
            case ast.Constant(value=int(value) | float(value)):
                yield self._replaced(node, repr(value + 1))
            case ast.Constant(value=str(value)):
                yield self._replaced(node, repr("XX" + value))
            case ast.Constant(value=bytes(value)):
                yield self._replaced(node, repr(b"XX" + value))
            case ast.IfExp(test=test) | ast.If(test=test) | ast.While(test=test):
                yield self._replaced(test, f"not ({self._text(test)})")
            case ast.Lambda(body=body) if self._text(body) != "None":
                yield self._replaced(body, "None")

    def _of_statement(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.Raise() | ast.Break():
                yield self._replaced(node, "pass")
            case ast.Continue():
                yield self._replaced(node, "break")
            case ast.Return(value=ast.expr() as value):
                if self._text(value) != "None":
                    yield self._replaced(value, "None")

    def _between(self, before: ast.expr, after: ast.expr, operator: str) -> Mutant:
        """Replace the operator between two operands, and leave their parentheses."""
        start, end = self._place(before)[1], self._place(after)[0]
        gap = self.source[start:end].decode()
        closing = gap[: gap.rfind(")") + 1]
        opening = gap[gap.find("(", len(closing)) :] if "(" in gap[len(closing) :] else ""
        return self._made(start, end, f"{closing} {operator} {opening}", before.lineno)

    def _replaced(self, node: ast.expr | ast.stmt, text: str) -> Mutant:
        return self._made(*self._place(node), text, node.lineno)

    def _made(self, start: int, end: int, text: str, line: int) -> Mutant:
        source = self.source[:start] + text.encode() + self.source[end:]
        before = self.source[start:end].decode()
        return Mutant(line=line, before=before, after=text, source=source)

    def _place(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr) -> str:
        start, end = self._place(node)
        return self.source[start:end].decode()


def without_words(tree: ast.Module) -> ast.Module:
    """Leave out what no test can notice: docstrings, annotations, imports, and the texts within f-strings."""

    class Words(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
            return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

        def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST | None:
            values: list[ast.expr] = [v for v in node.values if isinstance(v, ast.FormattedValue)]
            return ast.copy_location(ast.Tuple(values), node)

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
            return node.value and self.visit(node.value)

        def visit_arg(self, node: ast.arg) -> ast.AST | None:
            return ast.arg(node.arg)

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
            node.returns, node.decorator_list = None, []
            return self.generic_visit(node)

        def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST | None:
            node.decorator_list = []
            return self.generic_visit(node)

        def visit_If(self, node: ast.If) -> ast.AST | None:
            is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if is_typing else self.generic_visit(node)

    tree = Words().visit(tree)
    tree.body = [node for node in tree.body if not is_beside(node)]
    return tree


def is_beside(node: ast.AST) -> bool:
    """Whether a statement of a module is a limit, a name or a type: another would do as well."""
    value = node.value if isinstance(node, ast.Assign) else node
    return isinstance(value, (ast.Constant, ast.BinOp, ast.Subscript))


class Copy:
    """A copy of the repository whose tests run against one module as it is written there."""

    def __init__(self, folder: Path, module: str, arguments: list[str]) -> None:
        self.folder, self.module = folder, folder / module
        self.command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        self.command += arguments
        self.seconds = 600.0
        listed = subprocess.check_output(
            ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z"], text=True
        )
        for name in filter(None, listed.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)

    def notices(self, source: bytes) -> bool:
        """Whether a test fails, or does not end, with this source."""
        self.module.write_bytes(source)
        for stale in (self.module.parent / "__pycache__").glob(f"{self.module.stem}.*"):
            stale.unlink()  # it is told by a time stamp of whole seconds
        temporary = self.folder / ".tmp"
        temporary.mkdir(exist_ok=True)
        environment = {
            "DOCKER_HOST": NO_ENGINE,
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "TMPDIR": str(temporary),
        }
        with subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as tests:
            try:
                return tests.wait(self.seconds) != 0
            except subprocess.TimeoutExpired:
                return True
            finally:
                end_group(tests.pid)
                shutil.rmtree(temporary, ignore_errors=True)


def end_group(group: int) -> None:
    """End whatever is left of a process group."""
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        return


def main() -> int:
    """Print what survives, and the score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("--sample", type=int, help="so many changes, drawn at random")
    parser.add_argument("tests", nargs="+", help="test files, and other arguments of pytest")
    given, more = parser.parse_known_args()
    whole = (ROOT / given.module).read_bytes()
    mutants = sorted(Mutation(whole).mutants(), key=lambda mutant: mutant.line)
    if given.sample and given.sample < len(mutants):
        chosen = random.Random(given.module).sample(range(len(mutants)), given.sample)
        mutants = [mutants[number] for number in sorted(chosen)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder), given.module, [*given.tests, *more])
        begun = time.monotonic()
        if copy.notices(whole):
            sys.exit(f"the tests fail without any change: {' '.join(copy.command)}")
        copy.seconds = 3 * (time.monotonic() - begun) + SLACK_SECONDS
        survived = 0
        for number, mutant in enumerate(mutants, 1):
            if not copy.notices(mutant.source):
                survived += 1
                print(
                    f"{given.module}:{mutant.line}: {mutant.before!r} -> {mutant.after!r}",
                    flush=True,
                )
            if number % 20 == 0:
                print(f"  {number} of {len(mutants)}", flush=True)
    killed = len(mutants) - survived
    print(f"{given.module}: {killed} of {len(mutants)} noticed, {killed / len(mutants):.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
