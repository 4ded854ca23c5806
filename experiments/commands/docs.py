"""The command `docs`: a site of the documentation's pages and the docstrings.

Sphinx builds the site without the network, and treats every warning as an error. The
site loads nothing from other hosts, so it can be read from the disk.
"""

import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.commands._options import call
from experiments.docs import sources


@dataclass(frozen=True)
class Docs:
    """Build the documentation's site, with a page for each public name."""

    to: Path = Path("results/docs")
    """The folder of the site; an earlier site there is replaced."""


def main(options: Sequence[str]) -> None:
    """Runs the command with its command-line options."""
    build(call(Docs, "docs", options))


def build(config: Docs) -> None:
    """Builds the site; an earlier one stays until the new one is complete.

    Raises:
      ValueError: if the folder holds anything but an earlier site, or Sphinx is not
        installed.
      SystemExit: if Sphinx warns of anything.
    """
    check_replaceable(config.to)
    if not all(map(importlib.util.find_spec, ("sphinx", "myst_parser", "furo"))):
        raise ValueError(
            "`docs` needs Sphinx, myst-parser and furo, which are not all installed. "
            'Install them: `pip install -e ".[docs]"`.'
        )
    from sphinx.cmd.build import build_main

    target = config.to.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: the finished site is then moved there in one step.
    with tempfile.TemporaryDirectory(prefix=".docs-", dir=target.parent) as folder:
        source, site = Path(folder, "docs"), Path(folder, "site")
        sources.write(source)
        settings = ["-c", str(sources.PAGES), "-d", str(Path(folder, "parsed"))]
        strict = ["--fail-on-warning", "--quiet"]
        if build_main(["-b", "html", *strict, *settings, str(source), str(site)]):
            raise SystemExit("The site was not built; Sphinx printed the reason above.")
        if target.exists():
            shutil.rmtree(target)
        site.rename(target)
    print(f"The site starts at {config.to / 'index.html'}")


def check_replaceable(folder: Path) -> None:
    """Raises a `ValueError` unless a folder is new, empty or an earlier site."""
    site = [folder / name for name in (".buildinfo", "objects.inv", "index.html")]
    if folder.is_dir() and not folder.is_symlink():
        replaceable = all(map(Path.is_file, site)) or not any(folder.iterdir())
    else:
        replaceable = not folder.exists() and not folder.is_symlink()
    if not replaceable:
        raise ValueError(
            "`to` must be a new folder, an empty one or an earlier site, which is "
            f"replaced, but {str(folder)!r} is something else. Name another one: "
            "`--to FOLDER`."
        )
