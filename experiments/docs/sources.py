"""Writes what Sphinx reads: the pages of this folder, and a page for each public name.

The pages stay plain Markdown, in the order of the links in `index.md`. The pages of
public names follow the groups of `gmc_jax.__all__`.
"""

import ast
import importlib
import inspect
import re
import shutil
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import gmc_jax
from experiments.docs.docstrings import restructured

PAGES = Path(__file__).parent
REFERENCE = "reference"


class Group(NamedTuple):
    """Public names of a kind.

    Attributes:
      title: the kind, such as `Compressors`.
      about: a sentence about the names; empty if there is none.
      names: in alphabetical order.
    """

    title: str
    about: str
    names: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The folder of their pages."""
        return f"{REFERENCE}/{re.sub(r'[^a-z]+', '_', self.title.lower())}"


def groups() -> list[Group]:
    """The groups of `gmc_jax.__all__`, with titles from the comments above them."""
    source = inspect.getsource(gmc_jax)
    found = []
    for heading, names in re.findall(
        r"^# (.+)\.\n__all__ \+?= (\[[^]]*\])", source, re.M
    ):
        title, _, about = heading.partition(": ")
        sentence = f"{about[0].upper()}{about[1:]}." if about else ""
        found.append(Group(title, sentence, tuple(sorted(ast.literal_eval(names)))))
    return found


def write(folder: Path) -> None:
    """Writes all that Sphinx reads into a new folder.

    A link to the experiments' results is made beside the folder, since pages show
    figures from there.
    """
    folder.mkdir()
    folder.with_name("results").symlink_to(PAGES.parent / "results")
    kinds = groups()
    for page in PAGES.glob("*.md"):
        text = _without_links_to_elsewhere(page.read_text(encoding="utf-8"))
        if page.stem == "index":
            text += "\n" + "\n".join(_contents(text, kinds))
        (folder / page.name).write_text(text, encoding="utf-8")
    for picture in PAGES.glob("*.png"):
        shutil.copy(picture, folder)
    for group in kinds:
        (folder / group.folder).mkdir(parents=True)
        for name, text in _reference(group):
            (folder / group.folder / name).write_text(text, encoding="utf-8")


def pages_linked(index: str) -> Iterator[tuple[str, list[str]]]:
    """Each heading of the index, with the pages that its section links to."""
    for section in re.split(r"^## ", index, flags=re.M)[1:]:
        heading = section.partition("\n")[0]
        linked = re.findall(r"\]\((\w+)\.md\)", section)
        yield heading, list(dict.fromkeys(linked))


def members(module: ModuleType) -> list[str]:
    """The public names of a module: those it defines, and those it re-exports."""
    found = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.asname == alias.name]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
    return [name for name in found if not name.startswith(("_", "check_"))]


def _contents(index: str, kinds: list[Group]) -> Iterator[str]:
    """Tables of contents, which the theme shows beside every page."""
    for heading, linked in pages_linked(index):
        if linked:
            yield _toctree(linked, heading)
    yield _toctree([f"{group.folder}/index" for group in kinds], "Reference")


def _toctree(documents: list[str], caption: str = "") -> str:
    options = [":hidden:", f":caption: {caption}" if caption else ":maxdepth: 1"]
    return "\n".join(["```{toctree}", *options, "", *documents, "```", ""])


def _reference(group: Group) -> Iterator[tuple[str, str]]:
    """The name and the text of each page of a group."""
    rows = []
    for name in group.names:
        first_line = _docstring(gmc_jax, name).partition("\n")[0]
        rows.append(f"| `{name}` | {first_line.replace('|', chr(92) + '|')} |")
        yield f"{name}.rst", "\n".join(_page(name))
    head = [f"# {group.title}", "", group.about, "", "| | |", "|---|---|"]
    yield "index.md", "\n".join([*head, *rows, "", _toctree(list(group.names))])


def _page(name: str) -> Iterator[str]:
    """The lines of the page of a public name."""
    yield from [name, "=" * len(name), ""]
    thing = getattr(gmc_jax, name)
    if not inspect.ismodule(thing):
        yield from [".. py:currentmodule:: gmc_jax", "", *_documented(gmc_jax, name)]
        return
    yield from [f".. py:module:: gmc_jax.{name}", ""]
    yield from restructured(_docstring(gmc_jax, name).splitlines())
    yield from ["", ".. py:currentmodule:: gmc_jax", ""]
    elsewhere = [member for member in members(thing) if member in gmc_jax.__all__]
    if elsewhere:
        links = ", ".join(f"`{member}`" for member in elsewhere)
        yield from [f"On pages of their own: {links}.", ""]
    for member in members(thing):
        if member not in elsewhere:
            yield from _documented(thing, member, f"{name}.")


def _documented(module: ModuleType, name: str, prefix: str = "") -> Iterator[str]:
    """The directive that documents a member of a module, by its public name."""
    thing = getattr(module, name)
    if inspect.isclass(thing):
        yield from [f".. autoclass:: gmc_jax::{prefix}{name}", "   :members:"]
    elif inspect.isfunction(thing):
        yield f".. autofunction:: gmc_jax::{prefix}{name}"
    else:
        value, docstring = _assignment(module, name)
        yield from [f".. py:data:: {prefix}{name}", f"   :value: {value}", ""]
        yield from (f"   {line}" for line in restructured(docstring.splitlines()))
    yield ""


def _docstring(module: ModuleType, name: str) -> str:
    thing = getattr(module, name)
    if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
        return inspect.getdoc(thing) or ""
    return _assignment(module, name)[1]


def _assignment(module: ModuleType, name: str) -> tuple[str, str]:
    """The value and the docstring of a name that is no class or function.

    They are read from the source of the module that assigns the name.
    """
    body = ast.parse(inspect.getsource(module)).body
    for node, below in zip_longest(body, body[1:]):
        match node:
            case ast.ImportFrom(module=str(source), names=aliases):
                if name in [alias.asname for alias in aliases]:
                    return _assignment(importlib.import_module(source), name)
            case (
                ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value)
                | ast.Assign(targets=[ast.Name(id=found)], value=value)
            ) if found == name:
                match below:
                    case ast.Expr(ast.Constant(str(docstring))):
                        return ast.unparse(value), inspect.cleandoc(docstring)
                return ast.unparse(value), ""
    raise ValueError(f"`{module.__name__}` assigns nothing to `{name}`.")


def _without_links_to_elsewhere(page: str) -> str:
    """Removes links to files that are not part of the site; their words stay."""
    return re.sub(r"(?<!!)\[([^]]*)\]\((?:\.\./)+[^)]*\)", r"\1", page)
