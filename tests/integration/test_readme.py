"""What the README shows runs, and what it names is there."""

import re

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


def test_the_python_blocks_run_one_after_another(tmp_path):
    assert len(python_blocks(README)) >= 4
    on_eight = "assert jax.device_count() == 8, jax.devices()\n"
    run(PAGE, tmp_path, afterwards=on_eight)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_stand_in_it_as_printed(command):
    lines = [line for block in fenced(README) for line in block.splitlines()]
    assert lines.count(command) == 1


def test_ci_takes_the_second_command_from_it():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    patterns = re.findall(r"grep .*'(.+)' README\.md", script)
    assert len(patterns) == 1
    assert re.findall(f"^.*{patterns[0]}", README, re.M)[0] == COMMANDS[1]


def test_links_and_paths_lead_somewhere():
    paths = re.findall(r"`((?:gmc_jax|tests|experiments)/[\w./]+)`", README)
    assert links(README)
    assert paths
    assert dead_links(PAGE) == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_public_names_exist_and_none_is_forgotten():
    assert missing_names(README) == []
    factories = {
        file.stem
        for room in ("compressors", "channels", "methods")
        for file in (ROOT / "gmc_jax" / room).glob("[a-z]*.py")
        if hasattr(gmc_jax, file.stem)
    }
    assert "gmc" in factories
    assert [name for name in factories if not re.search(rf"\b{name}\b", README)] == []
