"""`tts-jax studies`: what comes with the package is listed, printed, and run by its name."""

from pathlib import Path

import tts_jax as tts
from tts_jax import cli
from tts_jax.cli.studies import study_file

NAMES = ["committee", "risk-epsilon", "risk-limit", "success-eta", "success-width"]


def test_studies_are_listed_with_what_they_are(capsys):
    assert cli.main(["studies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert "How often the gradient flow recovers the target" in lines[-1]


def test_a_study_that_is_printed_is_one(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    for name in NAMES:
        assert cli.main(["studies", name]) == 0
        file.write_text(capsys.readouterr().out)
        assert "width" in tts.read_study(file).axes.names


def test_a_study_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = tts.read_study(study_file(Path("risk-limit")))
    assert isinstance(found.dynamics, tts.LimitFlow)
    # A file of that name comes first, and what may be a path stays one.
    (tmp_path / "risk-limit").write_text("nothing")
    for path in (Path("risk-limit"), Path("risk-eta.toml"), Path("studies/risk-limit")):
        assert study_file(path) == path


def test_an_unknown_study_is_answered_with_the_nearest_names(capsys):
    for words in (["studies", "success-wdith"], ["sweep", "success-wdith"]):
        assert cli.main(words) == 2
        told = capsys.readouterr().err
        assert "there is no study `success-wdith`. Did you mean success-width" in told
