"""Docstrings as Sphinx wants them.

They are written to be read as they are: in Google's style, with code in single
backticks and equations in plain indented text. Here they become reStructuredText.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby

_SECTION = re.compile(r"[A-Z]\w+:")
# Marks of lists, emphasis, code, and what reStructuredText alone takes for markup.
_MARKUP = re.compile(r"^ *[*-] |(?<!\w)\*\w[\w ]*\*(?!\w)|`[^`]+`|[\\*|]|_(?!\w)", re.M)


def restructured(docstring: Iterable[str]) -> list[str]:
    """The lines of a docstring in reStructuredText, sections as napoleon takes them."""
    marked = _literal_blocks(_bullets(_free_returns(docstring)))
    lines = []
    for literal, group in groupby(marked, lambda line: line[0]):
        texts = [text for _, text in group]
        lines += texts if literal else _escaped("\n".join(texts)).split("\n")
    return lines


def signature(thing: object, *, method: bool = False) -> tuple[str, str | None] | None:
    """The arguments and the result of a function or class, as its source has them.

    Args:
      thing: a function or a class.
      method: whether its first argument is not to be shown.

    Returns:
      Two strings, the second None where there is no result; None for other things.
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
    """Annotations that are quoted, without their quotes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            match node.annotation:
                case ast.Constant(str(quoted)):
                    node.annotation = ast.parse(quoted, mode="eval").body
    return tree


def _free_returns(docstring: Iterable[str]) -> Iterator[str]:
    """What is returned, in words alone.

    Napoleon takes the words before a colon for a type, here no words.
    """
    before = ""
    for line in docstring:
        free = before == "Returns:" and ":" in line
        yield f"  : {line.strip()}" if free else line
        before = line


def _bullets(docstring: Iterable[str]) -> Iterator[str]:
    """The guarantees as a list: one begins where the line before ends a sentence."""
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
    """Whether a line is shown as it is, and the line.

    Equations and tables are, which are indented after an empty line, and examples.
    """
    block: int | None = None  # Its indentation.
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
    """Where the text of a line starts, behind the mark of a list."""
    return len(line) - len(re.sub(r"^ *([*-] )?", "", line))


def _escaped(text: str) -> str:
    """Text in which nothing is markup but lists, emphasis and code."""

    def escape(found: re.Match[str]) -> str:
        mark, (start, end) = found[0], found.span()
        if len(mark) == 1:
            return f"\\{mark}"
        if not mark.startswith("`"):
            return mark
        # Code must not touch a word, unless something invisible stands in between.
        left = "\\ " if text[max(0, start - 1) : start].isalnum() else ""
        right = "\\ " if text[end : end + 1].isalnum() else ""
        return left + mark.replace("\\", "\\\\") + right

    return _MARKUP.sub(escape, text)
