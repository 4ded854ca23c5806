"""What the README shows runs, and what it names is there."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import gmc_jax

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    'pip install -e ".[experiments]" && python -m experiments',
    'pip install -e ".[test]" && python -m pytest',
]


def python_blocks() -> list[tuple[int, list[str]]]:
    """The line that each ```python block starts after, and its lines."""
    blocks = []
    for block in re.finditer(r"^```python\n(.*?)^```$", README, re.M | re.S):
        first = README[: block.start(1)].count("\n")
        blocks.append((first, block[1].splitlines()))
    return blocks


def program() -> str:
    """All blocks as one program, on the lines on which they stand in the README."""
    lines = [""] * README.count("\n")
    for first, block in python_blocks():
        lines[first : first + len(block)] = block
    return "\n".join([*lines, "assert jax.device_count() == 8, jax.devices()", ""])


def test_the_python_blocks_run_one_after_another(tmp_path):
    assert len(python_blocks()) >= 4
    script = tmp_path / "README.py"
    script.write_text(program(), encoding="utf-8")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS") or "cpu",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout.lower(), done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_stand_in_it_as_printed(command):
    fenced = re.findall(r"^```\w*\n(.*?)^```$", README, re.M | re.S)
    assert [line for block in fenced for line in block.splitlines()].count(command) == 1


def test_ci_takes_the_second_command_from_it():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    patterns = re.findall(r"grep .*'(.+)' README\.md", script)
    assert len(patterns) == 1
    assert re.findall(f"^.*{patterns[0]}", README, re.M)[0] == COMMANDS[1]


def test_links_and_paths_lead_somewhere():
    links = re.findall(r"\]\((?!\w+://)([^)#]+)", README)
    paths = re.findall(r"`((?:gmc_jax|tests|experiments)/[\w./]+)`", README)
    assert links
    assert paths
    assert [path for path in links + paths if not (ROOT / path).exists()] == []


def test_public_names_exist_and_none_is_forgotten():
    named = set(re.findall(r"\bgmc_jax\.(\w+)", README))
    assert [name for name in named if not hasattr(gmc_jax, name)] == []
    factories = {
        file.stem
        for room in ("compressors", "channels", "methods")
        for file in (ROOT / "gmc_jax" / room).glob("[a-z]*.py")
        if hasattr(gmc_jax, file.stem)
    }
    assert "gmc" in factories
    assert [name for name in factories if not re.search(rf"\b{name}\b", README)] == []
