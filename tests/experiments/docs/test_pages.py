"""The pages: their Python runs, and what they link to and name is there."""

import re

import pytest

from experiments.commands import COMMANDS
from experiments.docs import sources
from tests.support.markdown_pages import dead_links, missing_names, read, run

PAGES = sorted(sources.PAGES.glob("*.md"))
# What must hold when the program of a page has run.
AFTERWARDS = {
    "diloco_mesh": """
assert crossing(inner_step, params, opt_state, batch) == 0
assert crossing(handed_out, outer_state[0]) == 0
assert 0 < crossing(synchronise, outer_state, params) < 200
start = handed_out(inner.init(anchor))
assert start[0].mu["in"].sharding.is_equivalent_to(of_all, 3)
tx = gmc_jax.sparse_loco(inner, channel, period=10)
def whole_step(state, batch):
    params, opt_state = state
    loss, grads = jax.value_and_grad(loss_fn)(params, batch)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss
train, state = gmc_jax.distribute(
    whole_step, (anchor, tx.init(anchor)), batch, mesh=mesh, axis_name="diloco"
)
for _ in range(70):
    state, _ = train(state, batch)
for name, leaf in params.items():
    np.testing.assert_allclose(leaf, state[0][name], atol=1e-5)
""",
}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@pytest.mark.slow
@every_page
def test_the_python_of_a_page_runs(page, tmp_path):
    run(page, tmp_path, afterwards=AFTERWARDS.get(page.stem, ""))


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
