"""What Sphinx reads: the pages, and one for each public name."""

import re

import pytest

import gmc_jax
from experiments.docs import sources
from tests.support.markdown_pages import links, read


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "docs"
    sources.write(folder)
    return folder


def test_every_public_name_gets_a_page_in_the_group_of_its_kind(source):
    written = {path.stem: path for path in source.rglob("*.rst")}
    assert sorted(written) == sorted(gmc_jax.__all__)
    assert len(list(source.rglob("*.rst"))) == len(gmc_jax.__all__)
    for name, kind in (("gmc", "methods"), ("top_k", "compressors")):
        assert written[name].parent.name == kind
        assert f".. autofunction:: gmc_jax::{name}" in written[name].read_text()
    assert ".. autoclass:: gmc_jax::Channel" in written["Channel"].read_text()


def test_no_two_pages_differ_in_case_alone(source):
    """Some file systems would take `Layout` and `layout` for one."""
    paths = [str(path).lower() for path in source.rglob("*") if path.is_file()]
    assert len(paths) == len(set(paths))


def test_the_contents_list_pages_and_then_every_group(source):
    contents = (source / "index.md").read_text()
    for group in sources.groups():
        assert f"\n{group.folder}/index\n" in contents
        listed = (source / group.folder / "index.md").read_text()
        assert all(f"\n{name}\n" in listed for name in group.names)
    assert contents.index("from_your_pmap_loop\n") < contents.index("reference/")


def test_a_module_is_documented_member_by_member(source):
    (page,) = source.rglob("topologies.rst")
    assert ".. autofunction:: gmc_jax::topologies.ring" in page.read_text()
    assert "check_" not in page.read_text()
    (page,) = source.rglob("planning.rst")
    assert "On pages of their own: `plan`" in page.read_text()
    assert "planning.plan\n" not in page.read_text()
    assert "Hashable" not in sources.members(gmc_jax.topologies)


def test_a_value_is_shown_as_it_is_written_with_the_docstring_below_it(source):
    (page,) = source.rglob("Step.rst")
    assert (
        ".. py:data:: Step\n"
        "   :value: Callable[[Tree, Tree], tuple[Tree, Tree]]\n\n"
        "   The step of one worker"
    ) in page.read_text()
    listed = (page.parent / "index.md").read_text()
    assert "| `Step` | The step of one worker: `(state, batch) -> (" in listed
    (page,) = source.rglob("planning.rst")
    assert ".. py:data:: planning.DENSE\n   :value: Pattern(" in page.read_text()


def test_links_to_what_is_no_part_of_the_site_lose_their_target(source):
    assert "../../README.md" in links(read(sources.PAGES / "index.md"))
    for page in source.rglob("*.md"):
        text = page.read_text()
        images = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
        assert all((source / image).exists() for image in images)
        outside = [link for link in links(text) if link.startswith("..")]
        assert set(outside) <= set(images)
