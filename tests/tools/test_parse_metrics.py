"""tools/parse_metrics.py as a user runs it."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.worlds.synthetic import write_run
from tools import parse_metrics
from utils.analysis.columns import Column, Table
from utils.analysis.tables import bold_rows, csv_text, latex, markdown, parts
from utils.command_line import run
from utils.paths import PROJECT

EXP0 = [["0", "failed", "180", "failed"], ["failed", "0", "0", "failed"]]
EXP4 = [["0", None, "180", None], ["180", "0", None, None]]


@pytest.fixture
def results(tmp_path, composed):
    write_run(tmp_path, composed, EXP0, name="exp0_base")
    write_run(
        tmp_path,
        composed,
        EXP4,
        name="exp4",
        gain=1.0,
        overrides=("pruning_step=200", "optimization_step=200", "+callbacks.mine._target_=x.Y"),
    )
    return tmp_path


@pytest.fixture
def parse(monkeypatch, capsys):
    """parse(*arguments) -> (status, stdout, stderr)."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["parse_metrics.py", *map(str, arguments)])
        status = 0
        try:
            run(parse_metrics.main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return start


def test_markdown_has_every_table_and_the_pick_in_each(parse, results):
    status, text, _ = parse(results, "--full")
    assert status == 0
    titles = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert titles == [
        "PSNR in dB",
        "PSNR (dB): mean / median / 5 % quantile",
        "SSIM and LPIPS as is",
        "Success and modes",
        "Settings",
        "Measurement loss / noise floor",
        "Images in which no particle succeeded",
        "Cost per image",
        "Phases, per image",
        "Paired differences to exp0_base, 95 % intervals",
        "Paired tests against exp0_base",
    ]
    assert "better orientation: as found or turned by 180 degrees, whichever" in text.split("### ")[1]
    for block in text.split("### ")[1:]:
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert "pick" in rows[0] and len({row.count("|") for row in rows}) == 1 and len(rows) >= 3
    row = next(line for line in text.splitlines() if line.startswith("| exp4 | 2 | 4 → 2 |"))
    assert "**26.05** ± 0.07" in row  # 25 + 1 and 25 + 1.1


def test_the_terminal_gets_one_table_of_eight_columns_and_what_differs(parse, results):
    status, text, _ = parse(results)
    assert status == 0 and max(map(len, text.splitlines())) <= 100 and "|" not in text and text.count("─" * 20) >= 1
    heads = text[: text.index("─")].split()
    assert heads == "failed experiment images success pick (dB) best (dB) particles passes seconds".split()
    rows = {line.split()[0]: line.split() for line in text[text.index("─") :].splitlines()[1:3]}
    assert rows["exp0_base"][1:5] == ["2", "2", "of", "2"] and rows["exp4"][-1] == "2.0"
    assert "[" not in text  # of two images no interval
    settings = text[text.index("Settings") :].splitlines()
    assert settings[1].split() == ["exp0_base", "the", "baseline"]
    assert settings[2].split() == ["exp4", "pruning_step=200,", "optimization_step=200"]
    assert "sampler" not in text and "--full" in text


def test_five_images_have_an_interval_in_the_one_table_and_four_in_no_table(parse, tmp_path, composed):
    write_run(tmp_path, composed, [["0", "failed"]] * 5, name="five", pictures=False)
    write_run(tmp_path, composed, [["0", "failed"]] * 4, name="four", pictures=False)
    text = parse(tmp_path)[1]
    assert "100 % [57, 100]" in text and "4 of 4" in text
    rows = [line for line in parse(tmp_path, "--tables", "modes,paired")[1].splitlines() if line.startswith("| four")]
    assert "4 of 4" in rows[0] and "[" not in "".join(rows)
    exported = {row["experiment"]: row for row in csv.DictReader(io.StringIO(parse(tmp_path, "--format", "csv")[1]))}
    assert float(exported["four"]["success.low"]) == pytest.approx(0.51, abs=0.01)  # as ever


def test_runs_of_several_samplers_say_so_each(parse, tmp_path, composed):
    write_run(tmp_path, composed, [["0"]], name="exp0_baseline", pictures=False)
    write_run(tmp_path, composed, [["0"]], name="exp1", overrides=("sampler=fast", "repulsion_scale=0.15"), pictures=False)
    text = parse(tmp_path)[1]
    assert re.search(r"^exp0_baseline +sampler 10 x 20 langevin$", text, re.MULTILINE)
    assert re.search(r"^exp1 +sampler fast \(10 x 5 hmc\), repulsion_scale=0.15$", text, re.MULTILINE)
    assert "the samplers differ" in text


def test_long_names_are_folded_and_markup_in_them_is_text(parse, tmp_path, composed):
    name = "a_very_long_name_of_an_experiment_" * 3 + "[red]"
    write_run(tmp_path, composed, [["0"]] * 5, name=name, pictures=False)
    text = parse(tmp_path)[1]
    assert max(map(len, text.splitlines())) <= 100
    assert "".join(line[:24].strip() for line in text.splitlines()[3:-2]) == name


@pytest.mark.parametrize("terminal", ["30", "300"])
def test_the_one_table_and_its_settings_are_100_characters_wide_in_any_terminal(
    terminal, parse, tmp_path, composed, monkeypatch
):
    monkeypatch.setenv("COLUMNS", terminal)
    changed = ("seed=1", "temperature=2", "repulsion_scale=0.15", "pruning_step=200", "optimization_step=200")
    for name, overrides in (("a", ()), ("b" * 60, changed)):
        write_run(tmp_path, composed, [["0", "180"]] * 5, name=name, overrides=overrides, pictures=False)
    text = parse(tmp_path)[1]
    assert 90 < max(map(len, text.splitlines())) <= 100
    assert all(override in " ".join(text.split()) for override in changed)


def test_without_a_truth_the_one_table_has_the_loss(parse, tmp_path, composed):
    write_run(tmp_path, composed, EXP0, name="measured", truth=False)
    text = parse(tmp_path)[1]
    assert "loss / floor" in text and "dB" not in text[: text.index("pick:")] and "success" not in text


def test_csv_has_one_row_per_experiment_in_full_precision(parse, results):
    rows = list(csv.DictReader(io.StringIO(parse(results, "--format", "csv")[1])))
    assert [row["experiment"] for row in rows] == ["exp0_base", "exp4"]
    assert float(rows[1]["psnr_aligned.best.mean"]) == pytest.approx(26.05, abs=1e-12)
    assert float(rows[1]["paired.psnr_aligned.best.difference"]) == pytest.approx(1.0) and rows[0]["paired.images"] == ""
    assert rows[1]["phases.optimization.seconds"] and rows[0]["phases.optimization.seconds"] == ""


def test_json_holds_everything_and_no_nan(parse, results):
    text = parse(results, "--format", "json", "--best-of", "2")[1]
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [row["experiment"] for row in rows] == ["exp0_base", "exp0_base: best of 2 of 4", "exp4"]
    assert rows[2]["paired"]["baseline"] == "exp0_base"


def test_per_image(parse, results):
    rows = list(csv.DictReader(io.StringIO(parse(results, "--per-image", "--format", "csv")[1])))
    order = [(row["image"], row["experiment"]) for row in rows]
    assert order == [("0", "exp0_base"), ("0", "exp4"), ("1", "exp0_base"), ("1", "exp4")]
    assert float(rows[2]["psnr_aligned.best"]) == pytest.approx(25.1)


@pytest.mark.heavy
def test_common_images_only(parse, results, composed):
    write_run(results, composed, [["0", "0"]], name="exp3", first_image=1)
    text = parse(results, "--common", "--tables", "modes")[1]
    assert [line.split(" |")[1] for line in text.splitlines() if line.startswith("| exp")][1:] == [" 1"] * 3


def test_out_writes_a_file_and_prints_nothing(parse, results, tmp_path):
    printed = parse(results, "--tables", "modes")[1]
    status, text, _ = parse(results, "--tables", "modes", "--out", tmp_path / "new" / "t.md")
    assert (status, text) == (0, "") and (tmp_path / "new" / "t.md").read_text() == printed


def test_latex_names_are_escaped_and_the_best_is_bold(parse, results):
    text = parse(results, "--format", "latex", "--tables", "quality")[1]
    assert r"exp0\_base & 2 & 4 &" in text and r"\textbf{26.05} $\pm$ 0.07" in text and r"4 $\to$ 2" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1 and "±" not in text


@pytest.mark.program
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(parse, results, tmp_path):
    parse(results, "--format", "latex", "--best-of", "2", "--out", tmp_path / "tables.tex")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage{graphicx}\n"
        "\\begin{document}\n\\input{tables.tex}\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-800:]
    assert "Overfull" not in done.stdout and (tmp_path / "paper.pdf").stat().st_size > 5000


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "the following arguments are required: RESULTS"),
        (("nowhere",), "nowhere: no such file or folder"),
        (("nowhere/metrics.json",), "nowhere/metrics.json: no such file or folder"),
        (("{}", "--format", "docx"), "invalid choice: 'docx'"),
        (("{}", "--tables", "all"), "tables=all: choose from quality"),
        (("{}", "--baseline", "exp7"), "baseline=exp7: choose from exp0_base, exp4"),
        (("{}", "--baseline", "exp7", "--per-image"), "baseline=exp7: choose from exp0_base, exp4"),
        (("{}/exp4", "--tables", "paired"), "tables=paired: needs more than one run"),
        (("{}", "--best-of", "4"), "no run of independent particles has more than 4 particles"),
        (("{}/exp0_base/records",), "holds no metrics.json"),
        (("{}/exp0_base/config.yaml",), "damaged, not JSON"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(parse, results, arguments, message):
    status, text, error = parse(*(argument.format(results) for argument in arguments))
    assert status == 2 and text == "" and message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.program
def test_a_damaged_run_among_others_is_named(results):
    path = results / "exp4" / "metrics.json"
    path.write_text(path.read_text()[:500])
    done = subprocess.run([sys.executable, PROJECT / "tools" / "parse_metrics.py", results], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {path}: damaged, not JSON") and done.stderr.count("\n") == 1


def test_bold_marks_ties_as_written_and_nothing_where_all_are_equal():
    best, least = Column("x", "x", "max"), Column("x", "x", "min")
    assert bold_rows(best, [1.001, 1.002, 0.5]) == {0, 1} and bold_rows(least, [3.0, None, 2.0]) == {2}
    assert bold_rows(best, [1.0, 1.0]) == set() and bold_rows(best, [1.0]) == set()
    assert bold_rows(Column("x", "x"), [1.0, 2.0]) == set()


def test_signs_are_written_as_rounded():
    def text(difference):
        return parts({"difference": difference, "low": None, "high": None}, 2)[0]

    assert [text(v) for v in (0.001, -0.001, 0.02, -0.02, -10.0)] == ["0.00", "0.00", "+0.02", "-0.02", "-10.00"]


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "+1", "-1+cmd"])
def test_no_cell_of_a_csv_begins_a_formula(text):
    (row,) = csv.DictReader(io.StringIO(csv_text([{"name": text, "names": [text, "b"], "loss": -1.5, "each": [-1.5, 2]}])))
    assert row == {"name": f"'{text}", "names": f"'{text} b", "loss": "-1.5", "each": "-1.5 2"}


def test_no_head_of_a_csv_begins_a_formula():
    assert csv_text([{"=1+1": 2, "a\n": 3}]) == "'=1+1,a\\n\n2,3\n"


def test_a_name_stays_in_its_cell():
    table = Table("a title", [Column("name", "name")], [["a\n| b \x1b[31m"]], ("a note\x1b[2J",))
    assert markdown(table).splitlines()[-3:] == ["| a\\n\\| b \\x1b[31m |", "", "a note\\x1b[2J"]
    assert "\x1b" not in latex(table) and "a\\textbackslash{}n" in latex(table)
