"""The settings of Sphinx, and our changes to docstrings, signatures and code."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from experiments.docs import docstrings

project = "gmc_jax"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
default_role = "literal"
smartquotes_action = "D"  # Dashes alone: quotes and dots stay as they are written.
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
myst_heading_anchors = 3
napoleon_attr_annotations = False
napoleon_custom_sections = ["Guarantees", "Equations"]

html_theme = "furo"
html_title = "gmc_jax"
html_copy_source = False
html_show_copyright = False

_NAME = re.compile(r"(?:gmc_jax\.)?([a-zA-Z_][\w.]*)(?:\(.*)?$", re.S)


def setup(app: Sphinx) -> None:
    """Registers the functions below for the events of Sphinx."""
    # Before napoleon, which looks for sections.
    app.connect("autodoc-process-docstring", _process_docstring, priority=100)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("doctree-read", _link_names)


def _process_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    del app, what, name, thing, options
    lines[:] = docstrings.restructured(lines)


def _process_signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: object,
    options: object,
    arguments: str | None,
    returns: str | None,
) -> tuple[str, str | None] | None:
    del app, name, options, arguments, returns
    return docstrings.signature(thing, method=what == "method")


def _skip_member(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Leaves out the fields of NamedTuples, which the class documents."""
    del app, what, name, skip, options
    return True if type(thing).__name__ == "_tuplegetter" else None


def _link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Turns code that is a public name into a link to its page.

    Other code stays as it is.
    """
    for code in list(doctree.findall(nodes.literal)):
        text = code.astext()
        name = _NAME.match(text)
        fixed = isinstance(code.parent, nodes.reference | nodes.title)
        if name and not fixed and text not in _parameters_around(code):
            link = addnodes.pending_xref(
                "",
                code.deepcopy(),
                refdomain="py",
                reftype="obj",
                reftarget=f"gmc_jax.{name[1]}",
                refdoc=app.env.docname,
                refwarn=False,
            )
            code.replace_self(link)


def _parameters_around(node: nodes.Node | None) -> set[str]:
    """The parameters of the function or class whose documentation contains a node."""
    names = set()
    while node is not None:
        if isinstance(node, addnodes.desc):
            for parameter in node.findall(addnodes.desc_parameter):
                names.add(parameter.astext().partition(":")[0])
        node = node.parent
    return names
