"""The command that builds the documentation's site."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.commands import docs
from experiments.docs import sources

ROOT = Path(__file__).parents[3]


def test_a_folder_that_is_no_site_is_left_alone(tmp_path):
    (tmp_path / "index.html").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path, tmp_path / "index.html", link):
        with pytest.raises(ValueError, match=r"`to` must be a new .*`--to FOLDER`"):
            docs.build(docs.Docs(to=folder))
    assert (tmp_path / "index.html").read_text() == "mine"


def make_earlier_site(folder):
    folder.mkdir()
    for name in (".buildinfo", "objects.inv", "index.html", "old.html"):
        (folder / name).touch()


def test_a_new_folder_an_empty_one_and_an_earlier_site_may_be_replaced(tmp_path):
    docs.check_replaceable(tmp_path)
    make_earlier_site(tmp_path / "site")
    for folder in ("new", "site"):
        docs.check_replaceable(tmp_path / folder)


def test_without_sphinx_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(docs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install -e "\.\[docs\]"'):
        docs.build(docs.Docs(to=tmp_path / "site"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_site_has_a_page_for_each_name_and_asks_no_other_host(tmp_path):
    """Warnings of Sphinx are errors of the command."""
    site = tmp_path / "site"
    make_earlier_site(site)
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "docs", "--to", str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [site]
    assert not (site / "old.html").exists()
    for group in sources.groups():
        for name in group.names:
            shown = (site / group.folder / f"{name}.html").read_text(encoding="utf-8")
            assert f'id="gmc_jax.{name}"' in shown or "module-gmc_jax" in shown, name
    method = (site / "reference/methods/gmc.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", method))
    assert "learning_rate: optax.ScalarOrSchedule" in text
    assert 'href="ef_sgd.html#gmc_jax.ef_sgd"' in method
    assert '"reference/methods/gmc"' in (site / "searchindex.js").read_text()
    for file in site.rglob("*"):
        if file.suffix in (".html", ".css", ".js"):
            assert loads_from_elsewhere(file.read_text(encoding="utf-8")) == [], file


def loads_from_elsewhere(text: str) -> list[str]:
    """What a browser would fetch from another host; links wait for a click."""
    tags = r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="
    calls = r"url\(|@import|import\(|fetch\("
    return re.findall(rf"""(?:{tags}|{calls})\s*["']?(?:\w+:)?//[^"')\s]*""", text)


def test_what_comes_from_other_hosts_is_found():
    for text in (
        '<script async src="https://cdn.org/a.js">',
        "<link rel='stylesheet' href='//cdn.org/a.css'>",
        "src: url(https://fonts.org/a.woff)",
        "@import 'http://a.org/a.css'",
    ):
        assert loads_from_elsewhere(text), text
    assert not loads_from_elsewhere('<a href="https://a.org">a</a> <img src="a.png">')
