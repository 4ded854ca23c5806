"""What the README shows runs, and what the READMEs and pages name is there."""

import re

import jax.numpy as jnp
import optax
import pytest

import gmc_jax
from tests.support.markdown_pages import (
    ROOT,
    dead_links,
    fenced,
    links,
    missing_names,
    python_blocks,
    read,
    run,
)

PAGE = ROOT / "README.md"
README = read(PAGE)
COMMANDS = [
    'pip install -e ".[experiments]" && python -m experiments',
    'pip install -e ".[test]" && python -m pytest',
]


READMES = [PAGE, *(ROOT / "experiments").rglob("README.md")]
PAGES = sorted((ROOT / "experiments" / "docs").glob("*.md"))


def test_it_is_short_and_soon_shows_code():
    lines = README.splitlines()
    assert len(lines) < 200
    assert any(line.startswith("```") for line in lines[:60])


def test_the_python_blocks_run_and_print_what_it_says(tmp_path):
    assert len(python_blocks(README)) == 2
    on_eight = (
        "assert jax.device_count() == 8, jax.devices()\n"
        "print(f'then {train(state, batch)[1].mean():.1f}')\n"
    )
    trained, distributed = run(PAGE, tmp_path, afterwards=on_eight).splitlines()
    ((loss, sizes),) = re.findall(r"loss (\S+); (.+)", trained)
    ((said, said_sizes),) = re.findall(r"`loss (\S+); ([^`]+)`", README)
    assert said_sizes == sizes
    assert float(loss) == pytest.approx(float(said), abs=0.01)
    assert float(distributed.split()[1]) > 2, "the loss before training"


def test_what_the_table_says_to_write_is_a_method():
    table = README.partition("Which method should I use?")[2].partition("\n\n`")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert 1 <= len(rows) <= 8
    names = vars(gmc_jax) | {"optax": optax, "rate": 0.1, "workers": 4}
    names["channel"] = gmc_jax.exact()
    for row in rows:
        written = re.findall(r"`([^`]+)`", row.split("|")[4])
        assert eval(written[0], names).init(jnp.zeros(3)) is not None, row


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_stand_in_it_as_printed(command):
    lines = [line for block in fenced(README) for line in block.splitlines()]
    assert lines.count(command) == 1


def test_ci_takes_the_second_command_from_it():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    patterns = re.findall(r"grep .*'(.+)' README\.md", script)
    assert len(patterns) == 1
    assert re.findall(f"^.*{patterns[0]}", README, re.M)[0] == COMMANDS[1]


@pytest.mark.parametrize("page", READMES, ids=lambda page: page.parent.name)
def test_links_lead_somewhere_and_public_names_exist(page):
    text = read(page)
    assert links(text)
    assert dead_links(page) == []
    assert missing_names(text) == []


def test_paths_lead_somewhere():
    text = "\n".join(read(page) for page in [*READMES, *PAGES])
    paths = re.findall(r"`((?:gmc_jax|tests|experiments)/[\w./]+)`", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("room", "page"),
    [
        ("compressors", "compressors_and_channels"),
        ("channels", "compressors_and_channels"),
        ("methods", "methods"),
    ],
)
def test_every_factory_has_a_line_in_the_table_of_its_kind(room, page):
    text = read(ROOT / "experiments" / "docs" / f"{page}.md")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    factories = [
        file.stem
        for file in (ROOT / "gmc_jax" / room).glob("[a-z]*.py")
        if hasattr(gmc_jax, file.stem)
    ]
    assert factories
    assert [name for name in factories if not re.search(rf"`{name}[`(]", rows)] == []
