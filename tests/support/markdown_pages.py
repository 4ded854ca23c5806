"""What Markdown pages promise: their Python runs, and their links lead somewhere."""

import os
import pathlib
import re
import subprocess
import sys

import gmc_jax

ROOT = pathlib.Path(__file__).parents[2]


def read(page: pathlib.Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced(text: str) -> list[str]:
    """All that stands in fences, of any language."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)


def python_blocks(text: str) -> list[tuple[int, list[str]]]:
    """The line that each ```python block starts after, and its lines."""
    blocks = []
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
        first = text[: block.start(1)].count("\n")
        blocks.append((first, block[1].splitlines()))
    return blocks


def program(text: str) -> str:
    """All blocks as one program, on the lines on which they stand in the page."""
    lines = [""] * text.count("\n")
    for first, block in python_blocks(text):
        lines[first : first + len(block)] = block
    return "\n".join([*lines, ""])


def run(page: pathlib.Path, folder: pathlib.Path, *, afterwards: str = "") -> str:
    """Runs the blocks of a page one after another; what they printed."""
    # Not the page's own name: `equinox.py` would hide the package.
    script = folder / f"page_{page.stem}.py"
    script.write_text(program(read(page)) + afterwards, encoding="utf-8")
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
    return done.stdout


def links(text: str) -> list[str]:
    """Where links and images lead that do not leave the checkout."""
    return re.findall(r"\]\((?!\w+://)([^)]+)\)", text)


def dead_links(page: pathlib.Path) -> list[str]:
    """Links to files that are not there, or to headings that their page has not."""

    def leads_somewhere(link: str) -> bool:
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        return target.exists() and (not heading or heading in _anchors(read(target)))

    return [link for link in links(read(page)) if not leads_somewhere(link)]


def missing_names(text: str) -> list[str]:
    """Names that a page takes for public ones of the package."""
    named = re.findall(r"\bgmc_jax\.(\w+)", text)
    return [name for name in named if not hasattr(gmc_jax, name)]


def _anchors(text: str) -> list[str]:
    """Headings as links spell them."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", without_code, re.M)
    return [
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")
        for heading in headings
    ]
