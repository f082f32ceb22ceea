"""The command: exit codes, bad names, folders, interruption."""

import importlib
import subprocess
import sys

import jax
import pytest

import tts_jax as tts
from tts_jax import cli


@pytest.fixture(scope="module")
def runner():
    return importlib.import_module(f"{cli.load_experiments().__name__}.runner")


def test_an_unknown_figure_is_answered_with_the_nearest_names(tmp_path, capsys):
    assert cli.main(["figures", "two-timescal", "--out", str(tmp_path)]) == 2
    complaint = capsys.readouterr().err
    assert "`two-timescal`" in complaint
    assert "Did you mean two-timescale" in complaint


@pytest.mark.parametrize("word", ["figure", "fiures", "Figures"])
def test_an_unknown_command_is_answered_with_the_nearest_one(word, capsys):
    assert cli.main([word]) == 2
    assert f"there is no command `{word}`. Did you mean figures?" in capsys.readouterr().err


def test_a_command_that_is_like_no_other_is_answered_with_all(capsys):
    assert cli.main(["x"]) == 2
    told = capsys.readouterr().err
    assert "Did you mean" not in told
    assert "All: figures, sweep, status, resume, plot, export, studies, version." in told


@pytest.mark.parametrize(
    "command", ["figures", "sweep", "status", "resume", "plot", "export", "studies"]
)
def test_the_help_says_no_nonsense(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = capsys.readouterr().out
    assert "None" not in said
    assert "(default: )" not in said
    assert "False" not in said
    usage = said[said.index(command) : said.index("\n\n")].split("]")[-1].split()
    assert len(usage) == len(set(usage))  # no two positional arguments of one name


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["figures", "notations", "--out", str(tmp_path / "file" / "sub")]) == 2
    assert str(tmp_path / "file" / "sub") in capsys.readouterr().err


def test_plots_without_data_are_refused(tmp_path, capsys):
    code = cli.main(["figures", "notations", "--only", "plot", "--out", str(tmp_path)])
    assert code == 2
    assert "run it without `--only plot` first" in capsys.readouterr().err


@pytest.mark.thorough
def test_data_and_then_plots_give_the_sketches_and_the_table(tmp_path):
    out = ["--out", str(tmp_path)]
    sketches = ["notations", "limit-sketch", "proof-sketch"]
    assert cli.main(["figures", *sketches, "--only", "data", *out]) == 0
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".md", ".nc", ".nc", ".nc"]
    assert cli.main(["figures", *sketches, "--only", "plot", *out]) == 0
    for name in sketches:
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "expected.md").read_text()
    assert "missed" not in table
    assert table.count("| met |") == 9


def test_a_missed_expectation_is_exit_status_1(tmp_path, runner, monkeypatch, capsys):
    sketch = runner.module_of("notations")
    monkeypatch.setattr(sketch, "rows", lambda data: [runner.Row("two", 2.0, 0.0, 1.0)])
    assert cli.main(["figures", "notations", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "| notations | two | 2 | 0 to 1 | **missed** |" in said.out
    # How far it is goes elsewhere than the numbers.
    assert "1 of 1: notations, in " in said.err
    assert "1 of 1" not in said.out


def test_a_quick_version_says_so_and_does_not_judge_what_needs_the_full_one(
    tmp_path, runner, monkeypatch, capsys
):
    sketch = runner.module_of("notations")
    row = runner.Row("two", 2.0, 0.0, 1.0, quick=False)
    monkeypatch.setattr(sketch, "rows", lambda data: [row])
    assert cli.main(["figures", "notations", "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "not judged (quick)" in printed
    assert "Quick versions, not the paper's settings: notations." in printed


@pytest.mark.thorough
def test_an_interrupt_keeps_what_is_finished_and_leaves_no_half_file(
    tmp_path, runner, monkeypatch, capsys
):

    def interrupted(data):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.module_of("proof-sketch"), "plot", interrupted)
    assert cli.main(["figures", "notations", "proof-sketch", "--out", str(tmp_path)]) == 130
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["notations.nc", "notations.png", "proof-sketch.nc"]
    assert "what was finished is kept" in capsys.readouterr().err


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path, runner):
    path = tmp_path / "numbers.txt"
    path.write_text("old")

    def write() -> None:
        with runner.atomically(path) as half:
            half.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.txt"]
    assert path.read_text() == "old"


def test_a_file_that_is_the_same_stays_and_one_that_has_changed_is_told(tmp_path, runner, capsys):
    path = tmp_path / "numbers.txt"

    def write(text: str) -> int:
        with runner.atomically(path) as half:
            half.write_text(text)
        return path.stat().st_ino

    first = write("new")
    assert write("new") == first
    assert capsys.readouterr().err == ""
    assert write("other") != first
    assert path.read_text() == "other"
    assert [p.name for p in tmp_path.iterdir()] == ["numbers.txt"]
    assert capsys.readouterr().err == f"  {path} has changed\n"


def test_a_figure_that_is_made_again_is_the_same_to_the_last_bit(tmp_path, capsys):
    def made():
        assert cli.main(["figures", "notations", "--out", str(tmp_path)]) == 0
        return {path: path.stat().st_ino for path in tmp_path.iterdir()}

    assert made() == made()
    assert "has changed" not in capsys.readouterr().err


def test_map_keeps_the_order_and_passes_on_errors(runner):
    run = runner.Run("figure", quick=False)
    assert run.map(lambda item: item**2, range(7), "squares") == [i**2 for i in range(7)]
    with pytest.raises(ZeroDivisionError):
        run.map(lambda item: 1 / (item - 3), range(7), "inverses")


def test_every_figure_has_a_module_with_data_plot_and_rows(runner):
    for name in runner.FIGURES:
        module = runner.module_of(name)
        assert all(callable(getattr(module, part)) for part in ("data", "plot", "rows"))


def test_version_and_module_entry():
    shown = subprocess.run(
        [sys.executable, "-m", "tts_jax", "version"], check=True, capture_output=True, text=True
    )
    assert f"jax {jax.__version__}" in shown.stdout


def test_the_version_is_an_option_too(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tts-jax {tts.__version__}\n"
