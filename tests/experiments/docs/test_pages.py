"""The pages: their Python runs, and what they link to and name is there."""

import re

import pytest

from experiments.commands import COMMANDS
from experiments.docs import sources
from tests.support.markdown_pages import dead_links, missing_names, read, run

PAGES = sorted(sources.PAGES.glob("*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.mark.slow
@every_page
def test_the_python_of_a_page_runs(page, tmp_path):
    run(page, tmp_path)


@every_page
def test_links_of_a_page_lead_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading of `code`\n[a](#a-heading-of-code) [b](#b) [c](c.md) [d](page.md)"
        "\n```python\n# no heading\n```\n[e](page.md#no-heading) [f](https://f.org)"
    )
    assert dead_links(page) == ["#b", "c.md", "page.md#no-heading"]


@every_page
def test_a_page_names_what_is_there(page):
    assert missing_names(read(page)) == []


def test_the_index_links_to_every_page():
    linked = dict(sources.pages_linked(read(sources.PAGES / "index.md")))
    assert "How to" in linked
    pages = [page for group in linked.values() for page in group]
    assert sorted([*pages, "index"]) == [page.stem for page in PAGES]


def test_the_page_on_experiments_has_a_line_for_every_command():
    page = read(sources.PAGES / "experiments.md")
    lines = re.findall(r"^\| `(\w+)", page, re.M)
    assert COMMANDS.keys() <= set(lines)
