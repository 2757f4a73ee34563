"""The tables of the documents are what the committed records give."""

import json
import subprocess
import sys

import pytest
import yaml

from tests.worlds.synthetic import write_run
from tools.evidence import keep_evidence, project_tables
from utils.command_line import run
from utils.paths import PROJECT
from utils.records.kept import read_records

EVIDENCE = PROJECT / "evidence"
DOCUMENT = """# Report
before
<!-- table: modes -->
old
<!-- end -->
between
<!-- notes -->
<!-- end -->
after
"""
COSTS = """# Costs
<!-- table: cost -->
<!-- end -->
"""
SPECS = [
    {"name": "modes", "folders": ["evidence/exp0", "evidence/exp1"], "kind": "modes"},
    {"name": "cost", "folders": ["evidence"], "kind": "cost", "baseline": "exp1", "columns": ["experiment", "success"]},
]


@pytest.fixture
def project(tmp_path, composed):
    write_run(tmp_path / "evidence", composed, [["0", "180"], ["failed", "0"]], name="exp0", pictures=False)
    write_run(tmp_path / "evidence", composed, [["0", "failed"], ["failed", "failed"]], name="exp1", pictures=False)
    (tmp_path / "evidence" / "tables.yaml").write_text(yaml.safe_dump(SPECS))
    (tmp_path / "PROJECT.md").write_text(DOCUMENT)
    (tmp_path / "docs" / "research" / "measured").mkdir(parents=True)
    (tmp_path / "docs" / "research" / "measured" / "cost.md").write_text(COSTS)
    return tmp_path


@pytest.fixture
def tool(project, monkeypatch, capsys):
    """tool(*options) -> (status, stdout, stderr)."""

    def start(*options):
        monkeypatch.setattr(sys, "argv", ["project_tables.py", "--project", str(project), *options])
        status = 0
        try:
            run(project_tables.main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return start


@pytest.mark.heavy
def test_tables_are_replaced_and_the_text_around_them_is_not(tool, project):
    cost = project / "docs/research/measured/cost.md"
    assert tool()[:2] == (0, f"{project}/PROJECT.md: replaced modes, notes\n{cost}: replaced cost\n")
    text = (project / "PROJECT.md").read_text()
    assert text.startswith("# Report\nbefore\n<!-- table: modes -->\n\n| experiment |") and text.endswith(
        "<!-- end -->\nafter\n"
    )
    assert "old" not in text and "\n\n<!-- end -->\nbetween\n<!-- notes -->\n\nSuccess: a particle labelled" in text
    assert "| exp0 | **2 of 2** |" in cost.read_text()
    assert cost.read_text().startswith("# Costs\n<!-- table: cost -->\n\n| experiment | success rate |")
    assert tool() == (0, f"{project}: all 2 tables of 2 documents are up to date\n", "")


@pytest.mark.heavy
def test_check_changes_nothing_and_fails_until_the_tables_are_right(tool, project):
    status, _, error = tool("--check")
    assert status == 1 and (project / "PROJECT.md").read_text() == DOCUMENT
    assert "PROJECT.md: out of date: modes, notes;" in error and "cost.md: out of date: cost;" in error
    tool()
    assert tool("--check")[0] == 0
    edit(project, "PROJECT.md", "**2 of 2**", "1 of 2")
    status, _, error = tool("--check")
    assert status == 1 and "out of date: modes;" in error and "cost.md" not in error
    tool()
    edit(project, "PROJECT.md", "Success: a particle", "Success: no particle")
    status, _, error = tool("--check")
    assert status == 1 and "out of date: notes;" in error


@pytest.mark.heavy
def test_a_note_stands_once_in_a_document_and_the_baseline_under_its_table(tool, project):
    runs = {"folders": ["evidence/exp0", "evidence/exp1"], "kind": "paired"}
    specs = [*SPECS, {"name": "to_exp0", **runs, "baseline": "exp0"}, {"name": "to_exp1", **runs, "baseline": "exp1"}]
    (project / "evidence" / "tables.yaml").write_text(yaml.safe_dump(specs))
    tables = "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in ("to_exp0", "to_exp1"))
    (project / "README.md").write_text(tables + "<!-- notes -->\n<!-- end -->\n")
    assert tool()[0] == 0
    text = (project / "README.md").read_text()
    assert text.count("95 % intervals") == text.count("Pairwise distance: of the latents") == 1
    first, second = text.split("<!-- table: to_exp1 -->")
    assert "Experiment minus exp0 on" in first and "Experiment minus exp1 on" in second
    assert tool("--check")[0] == 0


@pytest.mark.heavy
def test_tables_of_kept_runs_are_those_of_the_run_folders(tool, project):
    tool()
    (project / "evidence").rename(project / "results")
    for name in ("exp0", "exp1"):
        keep_evidence.keep(project / "results" / name, project / "evidence" / name)
    (project / "evidence" / "tables.yaml").write_text(yaml.safe_dump(SPECS))
    assert tool("--check")[0] == 0


@pytest.mark.heavy
def test_new_records_make_the_tables_out_of_date(tool, project, composed):
    tool()
    write_run(project / "evidence", composed, [["0", "0"]] * 2, name="exp2")
    status, _, error = tool("--check")
    assert status == 1 and "out of date: cost;" in error  # its entry names the parent folder


@pytest.mark.heavy
def test_common_restricts_a_table_to_the_images_of_all_runs(tool, project, composed):
    write_run(project / "evidence", composed, [["0", "0"]] * 3, name="exp2", first_image=1)
    edit(project, "evidence/tables.yaml", "kind: modes", "kind: failures\n  common: true")
    edit(project, "evidence/tables.yaml", "- evidence/exp0\n", "- evidence/exp0\n  - evidence/exp2\n")
    tool()
    text = (project / "PROJECT.md").read_text()
    assert "| exp0 | 1 | 2 | **0** | none |" in text and "| exp1 | 1 | 2 | 1 | 1 |" in text


def test_a_table_of_priors_comes_from_their_files(tool, project):
    rows = [
        {
            "family": "scenes",
            "samples": 500,
            "distance": {"mean": 4.0, "std": 0.5, "n": 20, "missing": 0},
            "floor": {"mean": 2.0, "std": 0.25, "n": 20, "missing": 0},
            "ratio": 2.0,
            "psnr_upright": {"mean": 40.0, "min": 34.0},
            "psnr_rotated": {"mean": 41.0, "min": 35.0},
            "decoder_ms": 5.0,
        }
    ]
    (project / "evidence" / "before.json").write_text(json.dumps(rows))
    (project / "evidence" / "after.json").write_text(
        json.dumps([rows[0] | {"ratio": 1.5, "layout": {"ratio": 1.25}, "detail": {"ratio": 9.0}}])
    )
    specs = [SPECS[1], {"name": "modes", "folders": ["evidence/before.json", "evidence/after.json"], "kind": "prior"}]
    (project / "evidence" / "tables.yaml").write_text(yaml.safe_dump(specs))
    assert tool()[0] == 0
    text = (project / "PROJECT.md").read_text()
    assert "| before | scenes | 500 | 4.00 ± 0.50 | 2.00 ± 0.25 | 2.00 | – | – | 40.00 | 34.00 | 41.00 | 35.00 | 5.00 |" in text
    assert "| after | scenes | 500 | 4.00 ± 0.50 | 2.00 ± 0.25 | 1.50 | 1.25 | 9.00 |" in text
    (project / "evidence" / "after.json").write_text("{}x")
    status, _, error = tool()
    assert status == 2 and "after.json: not written by tools/prior_quality.py" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda p: edit(p, "PROJECT.md", "<!-- table: modes", "<!-- table: nodes"),
            "table nodes is not described in tables.yaml",
        ),
        (lambda p: edit(p, "PROJECT.md", "old\n<!-- end -->\n", ""), "table modes has no closing line"),
        (
            lambda p: edit(p, "docs/research/measured/cost.md", "<!-- table: cost -->\n<!-- end -->\n", ""),
            "has a place for the table cost",
        ),
        (lambda p: edit(p, "docs/research/measured/cost.md", "table: cost", "table: modes"), "table modes stands there and in"),
        (lambda p: edit(p, "PROJECT.md", "between", "<!-- table: modes -->\n<!-- end -->"), "table modes stands there twice"),
        (lambda p: edit(p, "PROJECT.md", "<!-- notes -->\n<!-- end -->\n", ""), "has no place for the notes of its tables"),
        (lambda p: edit(p, "PROJECT.md", "between", "<!-- notes -->\n<!-- end -->"), "the notes stand there twice"),
        (lambda p: edit(p, "PROJECT.md", "<!-- notes -->\n<!-- end -->", "<!-- notes -->"), "notes has no closing line"),
        (lambda p: edit(p, "evidence/tables.yaml", "kind: modes", "kind: moods"), "entry 0.kind"),
        (
            lambda p: edit(p, "evidence/tables.yaml", "baseline: exp1", "baseline: exp7"),
            "baseline=exp7: choose from exp0, exp1",
        ),
        (lambda p: edit(p, "evidence/tables.yaml", "- success", "- luck"), "cost: column luck: choose from"),
        (lambda p: edit(p, "evidence/tables.yaml", "name: cost", "name: modes"), "table modes stands there twice"),
        (lambda p: edit(p, "evidence/tables.yaml", "evidence/exp0", "evidence/exp9"), "no such file or folder"),
        (lambda p: edit(p, "evidence/tables.yaml", "columns:", "columns: [}"), "not YAML"),
        (lambda p: (p / "evidence" / "exp1" / "records" / "00001.npz").unlink(), "has 2 images, its records have 1"),
        (lambda p: (p / "PROJECT.md").unlink(), "no document has a place for the table modes"),
        (lambda p: (p / "PROJECT.md").write_bytes(b"\xff"), "PROJECT.md: cannot be read (not UTF-8)"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tool, project, change, message):
    change(project)
    before = {path: path.read_bytes() for path in project.rglob("*.md")}
    status, text, error = tool()
    assert status == 2 and text == "" and message in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in project.rglob("*.md")} == before


def edit(project, name, old, new):
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new, 1))


@pytest.mark.program
@pytest.mark.skipif(not (EVIDENCE / "tables.yaml").exists(), reason="no evidence is committed")
def test_the_tables_of_this_project_are_up_to_date():
    done = subprocess.run(
        [sys.executable, PROJECT / "tools/evidence/project_tables.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_evidence_of_this_project_is_small():
    files = [path for path in EVIDENCE.rglob("*") if path.is_file()]
    assert len(files) <= 480 and sum(path.stat().st_size for path in files) <= 8_000_000
    assert not [path for path in files if path.name == "metrics.json" or path.suffix == ".npz"]


@pytest.mark.heavy
def test_each_kept_run_of_this_project_is_small_and_holds_nothing_else():
    runs = sorted({path.parent for path in EVIDENCE.rglob("*") if path.is_file()} - {EVIDENCE})
    assert runs
    for folder in runs:
        size = {path.name: path.stat().st_size for path in folder.iterdir()}
        assert size.keys() - {"trivial.json"} == {"config.yaml", "records.jsonl.gz"}, folder
        images = sum(1 for _ in read_records(folder))
        assert size["records.jsonl.gz"] <= 3_000 * images, folder
        assert size["config.yaml"] <= 5_500 and size.get("trivial.json", 0) <= 1_000, folder
