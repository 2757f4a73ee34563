"""The example scripts and the notebook run, and the gallery shows each of them with its picture."""

import json
import re
import runpy
import sys
import time
from functools import partial

import matplotlib.pyplot as plt
import pytest
from PIL import Image

import latentdaps
from utils.paths import PROJECT

EXAMPLES = PROJECT / "docs/examples"
GALLERY = (PROJECT / "docs/gallery.md").read_text()
PRINTS = {  # script: what it says of the tiny run's images
    "reconstruct": r"^image 1: particle \d fits best, -?\d+\.\d dB, labels \[('\w+'(, )?){4}\]$",
    "watch": r"^step  2  sigma +0\.\d+  loss / noise floor \[( *\d\S*){4}\]$",
    "own_operator": r"^image 1: mean of the particles -?\d+\.\d dB, spread 0\.\d+$",
    "detector": r"^pick: -?\d+\.\d dB within the object, explains the data: \w+",
    "mechanisms": r"^  step 1: children accepted \[((True|False)(, )?){4}\]$",
}
MORE = {  # acts within three annealing steps; one frame
    "mechanisms": ["recombination_step=900"],
    "detector": ["data.end_id=1"],
}
NOTEBOOK = json.loads((EXAMPLES / "tour.ipynb").read_text())
CELLS = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_each_script_is_known():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.program
@pytest.mark.parametrize("name", PRINTS)
def test_a_script_runs_and_draws_its_picture(name, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *tiny, *MORE.get(name, [])])
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    out = capsys.readouterr().out
    assert re.search(PRINTS[name], out, re.MULTILINE), out
    place = tmp_path / "results" / f"example_{name}.jpg"
    assert out.splitlines()[-1] == str(place)
    with Image.open(place) as picture:
        low, high = picture.convert("L").getextrema()
    assert high - low > 200


@pytest.mark.parametrize("name", PRINTS)
def test_the_gallery_shows_each_script_with_its_picture(name):
    picture = PROJECT / "docs/pictures" / f"example_{name}.jpg"
    assert f"python docs/examples/{name}.py" in GALLERY and f"](pictures/{picture.name})" in GALLERY
    assert picture.stat().st_size < 200_000


def test_the_notebook_is_one_and_holds_what_its_cells_showed():
    assert NOTEBOOK["nbformat"] == 4 and NOTEBOOK["nbformat_minor"] >= 5
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    of_code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in of_code] == list(range(1, len(of_code) + 1))
    outputs = [output for cell in of_code for output in cell["outputs"]]
    assert all(out["output_type"] == "execute_result" or out.get("name") == "stdout" for out in outputs)
    kinds = {kind for out in outputs for kind in out.get("data", ())}
    assert {"text/html", "image/png"} <= kinds and len((EXAMPLES / "tour.ipynb").read_text()) < 400_000


def printed(cell):
    """What a code cell of the notebook printed when it was run last."""
    return "".join("".join(out["text"]) for out in cell["outputs"] if out.get("name") == "stdout")


def without_numbers(text):
    return re.sub(r"-?\d+(\.\d+)?", "#", text)


@pytest.mark.program
def test_the_lines_of_the_readme_run(tiny, tmp_path, monkeypatch, capsys):
    (lines,) = re.findall(r"^```python\n(import latentdaps\n.*?)^```$", (PROJECT / "README.md").read_text(), re.M | re.S)
    assert len(lines.splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latentdaps, "load", partial(latentdaps.load, overrides=tiny))
    exec(compile(lines, "README.md", "exec"), {})
    assert re.match(r"\[\d\] \['(within|above|below).*'\] \[\[( *\d+\.\d+){4}\]\]\n", capsys.readouterr().out)
    assert (tmp_path / "particles.png").is_file() and (tmp_path / "results/from_python/metrics.json").is_file()


@pytest.fixture(autouse=True)
def no_figure_left():
    """Scripts leave theirs to the end of their process; here it goes on."""
    yield
    plt.close("all")


@pytest.mark.program
def test_the_notebook_runs_in_under_two_minutes(capsys):
    """Its cells one after the other in one namespace, as a kernel does; none uses what only a notebook has."""
    names = {"__name__": "__main__"}
    started = time.process_time()  # a busy machine takes longer, and is no fault of the notebook
    for number, source in enumerate(CELLS):
        exec(compile(source, f"tour.ipynb, code cell {number}", "exec"), names)
    assert time.process_time() - started < 120
    out = capsys.readouterr().out
    stored = "".join(printed(cell) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")
    assert without_numbers(out) == without_numbers(stored)
    picked = int(re.search(r"^picked without the truth: (\d)$", out, re.MULTILINE)[1])
    assert float(re.search(rf"^particle {picked}: +\w+, (\S+) dB", out, re.MULTILINE)[1]) > 30
    assert len(re.findall("flows$", out, re.MULTILINE)) == 4
