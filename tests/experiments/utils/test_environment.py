"""Versions and commit."""

import jax

from experiments.utils.environment import environment


def test_versions_are_those_that_run():
    assert environment()["jax"] == jax.__version__


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert environment()["commit"] is None


def test_outside_of_a_checkout_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")

    assert environment()["commit"] is None
