"""How a study's log is recognised, and how its figures are written."""

import pytest
from matplotlib.figure import Figure

from experiments.training.study import Study, save


def test_a_study_owns_rows_of_its_kind_with_its_column():
    study = Study("walk", "gradient", lambda rows: [])
    assert study.owns([{"kind": "header"}, {"kind": "walk", "gradient": 1.0}])
    assert not study.owns([{"kind": "walk"}, {"kind": "curve", "gradient": 1.0}])
    assert study.figures([]) == {}


def test_a_figure_is_written_whole_or_what_was_there_stays(tmp_path):
    """The disk was full when a figure was drawn again."""

    class Failing(Figure):
        def savefig(self, fname, **options):
            fname.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    old = tmp_path / "figure.png"
    old.write_bytes(b"old")
    with pytest.raises(OSError, match=r"No space.*figure\.png"):
        save(Failing(), old)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(ValueError, match=r"`output` must end in .*png.* got"):
        save(Failing(), tmp_path / "figure.xyz")
