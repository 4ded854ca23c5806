"""Converts docstrings for Sphinx.

The docstrings are written to be read as they are: in Google's style, with code in
single backticks and equations in plain indented text. Here they become
reStructuredText.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby

_SECTION = re.compile(r"[A-Z]\w+:")
# Lists, emphasis, code, and characters that only reStructuredText takes for markup.
_MARKUP = re.compile(r"^ *[*-] |(?<!\w)\*\w[\w ]*\*(?!\w)|`[^`]+`|[\\*|]|_(?!\w)", re.M)


def restructured(docstring: Iterable[str]) -> list[str]:
    """Converts a docstring to reStructuredText, with sections that napoleon knows."""
    marked = _literal_blocks(_bullets(_free_returns(docstring)))
    lines = []
    for literal, group in groupby(marked, lambda line: line[0]):
        texts = [text for _, text in group]
        lines += texts if literal else _escaped("\n".join(texts)).split("\n")
    return lines


def signature(thing: object, *, method: bool = False) -> tuple[str, str | None] | None:
    """The arguments and the result of a function or class, as written in its source.

    Args:
      thing: a function or a class.
      method: whether to leave out the first argument.

    Returns:
      Two strings, the second None if there is no result; None if `thing` is neither.
    """
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return None
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    definition = _with_open_annotations(ast.parse(source)).body[0]
    if isinstance(definition, ast.ClassDef):
        for node in definition.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                return f"({_arguments(node, method=True)})", None
        fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
        return f"({', '.join(map(ast.unparse, fields))})", None
    assert isinstance(definition, ast.FunctionDef)
    returns = definition.returns and ast.unparse(definition.returns)
    shown = None if returns == "None" else returns
    return f"({_arguments(definition, method=method)})", shown


def _arguments(definition: ast.FunctionDef, *, method: bool) -> str:
    arguments = definition.args
    if method:
        del (arguments.posonlyargs or arguments.args)[0]
    return ast.unparse(arguments)


def _with_open_annotations(tree: ast.Module) -> ast.Module:
    """Removes the quotes of quoted annotations."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            match node.annotation:
                case ast.Constant(str(quoted)):
                    node.annotation = ast.parse(quoted, mode="eval").body
    return tree


def _free_returns(docstring: Iterable[str]) -> Iterator[str]:
    """Marks the words under "Returns:" as a description without a type.

    Napoleon takes words before a colon for a type. So a colon is put in front.
    """
    before = ""
    for line in docstring:
        free = before == "Returns:" and ":" in line
        yield f"  : {line.strip()}" if free else line
        before = line


def _bullets(docstring: Iterable[str]) -> Iterator[str]:
    """Makes the guarantees a list: each begins after a line that ends a sentence."""
    section, before, base = "", "", 0
    for line in docstring:
        if _SECTION.fullmatch(line):
            section, base = line, 0
        elif section == "Guarantees:" and line.strip():
            base = base or _indent(line)
            ended = before in ("", section) or before.endswith(".")
            mark = "* " if ended and _indent(line) == base else "  "
            line = " " * base + mark + line[base:]
        yield line
        before = line.strip()


def _literal_blocks(docstring: Iterable[str]) -> Iterator[tuple[bool, str]]:
    """Yields for each line whether it is literal, and the line.

    Examples are literal. So are equations and tables: lines that are indented after an
    empty line.
    """
    block: int | None = None  # The indentation of a literal block.
    before, empty, example = "", False, False
    for line in docstring:
        if not line.strip():
            yield False, line
            empty, example = True, False
            continue
        example = example or line.lstrip().startswith(">>>")
        if block is not None and _indent(line) < block:
            block = None
        deeper = _indent(line) > _start(before) and not _SECTION.fullmatch(before)
        if empty and deeper and not example and block is None:
            block = _indent(line)
            yield True, f"{' ' * _start(before)}.. code-block:: text"
            yield True, ""
        if example or block is not None:
            yield True, line
        else:
            yield False, line
            before = line
        empty = False


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _start(line: str) -> int:
    """The column at which the text of a line starts, behind the mark of a list."""
    return len(line) - len(re.sub(r"^ *([*-] )?", "", line))


def _escaped(text: str) -> str:
    """Escapes text, so that only lists, emphasis and code are markup."""

    def escape(found: re.Match[str]) -> str:
        mark, (start, end) = found[0], found.span()
        if len(mark) == 1:
            return f"\\{mark}"
        if not mark.startswith("`"):
            return mark
        # An escaped space separates code from a word that it touches; it is invisible.
        left = "\\ " if text[max(0, start - 1) : start].isalnum() else ""
        right = "\\ " if text[end : end + 1].isalnum() else ""
        return left + mark.replace("\\", "\\\\") + right

    return _MARKUP.sub(escape, text)
