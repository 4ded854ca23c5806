"""The list of named runs."""

from experiments.commands import list as listing
from experiments.training import named_runs


def test_the_list_has_every_name(capsys):
    listing.main([])

    printed = capsys.readouterr().out
    assert all(name in printed for name in named_runs.names())
