"""`tts-jax plot`: pictures of a finished sweep."""

import pytest
from small_studies import SGD_STUDY, written

from tts_jax import cli


def test_pictures_are_drawn_from_the_store(store, tmp_path, capsys):
    for kind, words in (
        ("risk", []),
        ("box", ["--over", "epsilon"]),
        ("phase", ["--over", "epsilon", "seed", "--below", "0.5"]),
        ("risk", ["--limit", str(store)]),
    ):
        out = tmp_path / f"{kind}.png"
        words = ["plot", str(store), "--kind", kind, "--out", str(out), *words]
        assert cli.main(words) == 0
        assert out.read_bytes().startswith(b"\x89PNG")
        out.unlink()
    assert cli.main(["plot", str(store)]) == 2
    assert "needs --over with 2 of the axes epsilon, seed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["pic", "pic.pdf"])
@pytest.mark.thorough
def test_pictures_of_zipped_axes_and_words(tmp_path, name, capsys):
    pair = "width = [5, 6]\nnoise = [0.1, 0.2]\n"
    grid = f"[grid]\nepsilon = 1e-2\nseed = {{ count = 3 }}\n[grid.pair]\n{pair}"
    path = written(tmp_path, SGD_STUDY.split("[grid]")[0] + grid)
    out = tmp_path / "s.zarr"
    assert cli.main(["sweep", str(path), "--out", str(out)]) == 0
    for kind in ("risk", "box"):
        words = ["plot", str(out), "--kind", kind, "--out", str(tmp_path / name)]
        assert cli.main(words) == 0
    assert cli.main(["plot", str(out), "--out", str(tmp_path / "x.foo")]) == 2
    assert cli.main(["plot", str(out), "--kind", "box", "--out", str(tmp_path / "a/b.png")]) == 2
    assert cli.main(["plot", str(out), "--kind", "box", "--over", "epsilom"]) == 2
    assert "there is no axis `epsilom`" in capsys.readouterr().err
