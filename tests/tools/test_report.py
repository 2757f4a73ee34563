"""The report: complete, self-contained, and shown without errors by a real browser."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.worlds.synthetic import write_run
from tools import report
from tools.evidence import keep_evidence
from utils.analysis import runs
from utils.analysis.experiments import gather
from utils.command_line import run

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
IMAGES = 4 + 6 + 2  # truth, measurement and two picks; figures; all particles of two runs
LABELS = [["0", "failed", "180", "mixed"], ["failed", "0", "0", "failed"]]
# appended to a copy of the page: what the browser made of its pictures
PROBE = """<script>addEventListener("load", () => { const all = [...document.images], body = document.body, wide = innerWidth;
for (const part of document.querySelectorAll("details")) part.open = true;
body.dataset.images = all.length; body.dataset.broken = all.filter(i => !i.naturalWidth).length;
body.dataset.page = document.documentElement.scrollWidth > wide ? "wider" : "fits";
const cut = [...document.querySelectorAll("th, td, img")].filter(part => !part.closest(".wide")
  && (part.getBoundingClientRect().right > wide + 1 || part.scrollWidth > part.clientWidth + 1));
const scrolled = [...document.querySelectorAll(".wide")].filter(box => box.getBoundingClientRect().right > wide + 1
  || !["auto", "scroll"].includes(getComputedStyle(box).overflowX));
body.dataset.cut = cut.length + scrolled.length;
body.dataset.sticky = [...document.querySelectorAll(".wide td:first-child")].every(
  cell => getComputedStyle(cell).position === "sticky");
const heads = document.querySelectorAll(".fits th"), rows = () => [...document.querySelectorAll(".fits tbody tr")];
const told = () => rows().map(row => row.cells[0].textContent).join(",");
const passes = [...heads].findIndex(head => head.textContent === "passes");
heads[passes].click(); body.dataset.falling = told(); heads[passes].click(); body.dataset.rising = told();
all[0].click(); body.dataset.zoomed = document.querySelector("dialog").open && document.querySelector("dialog img") !== null;
});</script>"""
POLICY = re.compile(r"<meta http-equiv=.*?>")


def write_results(folder, composed, pictures=True):
    write_run(folder, composed, LABELS, name="exp0_base", pictures=pictures)
    write_run(
        folder, composed, [["0", None, "180", None]] * 2, name="exp2<b>", overrides=("pruning_step=200",), pictures=pictures
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory, composed):
    """Path of the report of two runs."""
    folder = tmp_path_factory.mktemp("report")
    write_results(folder / "runs", composed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys,
            "argv",
            [
                "report.py",
                str(folder / "runs"),
                "--out",
                str(folder / "out" / "report.html"),
                "--best-of",
                "2",
                "--images",
                "1",
            ],
        )
        run(report.main)
    return folder / "out" / "report.html"


@pytest.mark.heavy
def test_the_page_has_tables_figures_pictures_and_configs(page):
    text = page.read_text()
    for title in (
        "PSNR in dB",
        "SSIM and LPIPS as is",
        "Success and modes",
        "Cost per image",
        "Phases, per image",
        "Paired differences to exp0_base",
    ):
        assert f"<h3>{title}" in text
    assert len(re.findall(r'<img [^>]*src="data:image/webp;base64,', text)) == IMAGES
    assert text.count("<details>") == 2 and "num_samples: 4" in text and "<b>25.05</b> ± 0.07" in text
    order = [text.index(f'id="{part}"') for part in ("answer", "pictures", "figures", "details")]
    assert order == sorted(order) and text.index('class="fits') < order[1]
    linked = re.findall(r'href="#([a-z]+)"', text)
    assert {"answer", "pictures", "figures", "details", "particles", "tables", "runs", "configs"} <= set(linked)
    assert all(f'id="{name}"' in text for name in linked)
    assert "exp0_base: best of 2 of 4" in text


@pytest.mark.heavy
def test_the_page_needs_nothing_from_outside_and_names_are_escaped(page):
    text = page.read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text) and "url(" not in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert "exp2&lt;b&gt;" in text and "exp2<b>" not in text


def test_only_what_differs_is_among_the_differences(page):
    text = page.read_text()
    told = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    assert [value for _, value in told] == ["the baseline", "pruning_step=200"]


@pytest.mark.heavy
def test_the_answer_is_a_sentence_and_a_table_and_no_table_can_be_cut_off(page):
    text = page.read_text()
    (sentence,) = re.findall(r'<p class="answer">(.*?)</p>', text)
    assert "exp2&lt;b&gt; has 100 % of the images solved and 25.1 dB of the label-free pick, for 72 decoder passes" in sentence
    heads = re.findall(r"<th>(.*?)</th>", text[text.index('class="fits') : text.index("</thead>")])
    assert heads == ["experiment", "images", "success", "pick (dB)", "best (dB)", "failed particles", "passes", "seconds"]
    for table in re.finditer(r'(.*)<table class="([a-z ]+)">', text):
        assert table[2] == "fits sort" or re.search(r'<div class="wide[^>]*>$', table[1])  # scrolls in its own box
    assert "overflow-x: auto" in text and "position: sticky; left: 0" in text and "prefers-color-scheme: dark" in text


@pytest.mark.heavy
def test_without_records_the_page_shows_the_grid_of_a_run_or_says_that_there_are_no_pictures(tmp_path, composed):
    write_results(tmp_path / "full", composed)
    for folder in (tmp_path / "full").iterdir():
        keep_evidence.keep(folder, tmp_path / "kept" / folder.name)
    experiments = gather([runs.load(path) for path in runs.find([tmp_path / "kept"])])
    assert report.drawings(experiments, 1)[1] == []
    text = report.page(experiments, "exp0_base", "title", 1)
    assert "hold no pictures" in text and text.count("<img") == 5
    (tmp_path / "kept" / "exp0_base" / "grid_results.png").write_bytes(b"\x89PNG grid")
    assert [picture["caption"] for picture in report.drawings(experiments, 1)[1]] == ["exp0_base: results."]


@pytest.mark.heavy
@pytest.mark.filterwarnings("error")
def test_a_run_on_measurements_has_its_losses_on_the_page(tmp_path, composed):
    write_run(tmp_path, composed, LABELS, truth=False)
    text = report.page(gather([runs.load(path) for path in runs.find([tmp_path])]), "exp0", "title", 1)
    section = text[text.index("<h3>Measurement loss / noise floor") :]
    assert "<td>1.500 ± 0.000</td><td>0.000 ± 0.000</td></tr>" in section  # mean and pick; no column of the best by the truth
    # steps and distances, measurement and pick of an image, all particles; no figure of a PSNR that is not known
    assert text.count("<img") == 2 + 2 + 1
    assert "without a truth, the loss of the label-free pick over its noise floor: exp0 0" in text


@pytest.mark.parametrize(
    "options, message",
    [
        (("--images", "0"), "images=0: must be at least 1"),
        (("--baseline", "x"), "baseline=x: choose from exp0"),
        (("--out", "/proc/no/report.html"), "out=/proc/no/report.html: cannot be written"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(tmp_path, composed, monkeypatch, capsys, options, message):
    write_run(tmp_path, composed, [["0"]], pictures=False)
    monkeypatch.setattr(report, "drawings", lambda experiments, images: ([], []))
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path), *options])
    with pytest.raises(SystemExit) as stop:
        run(report.main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and error.count("\n") == 1


def browse(path, profile, width=1200):
    """(DOM as text, console lines) of a page in a headless browser that cannot reach any host."""
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            f"--window-size={width},900",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.program
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_shows_the_page_without_errors_and_cuts_no_column_off(page, tmp_path, width):
    probed = tmp_path / "probed.html"
    probed.write_text(POLICY.sub("", page.read_text()).replace("</body>", f"{PROBE}</body>"))
    dom, console = browse(probed, tmp_path / "profile", width)
    assert console == []
    found = dict(re.findall(r'data-([a-z]+)="([^"]*)"', dom[dom.index("<body") :].split(">")[0]))
    assert found["images"] == str(IMAGES) and found["broken"] == "0"
    assert found["page"] == "fits" and found["cut"] == "0" and found["sticky"] == "true" and found["zoomed"] == "true"
    names = ["exp0_base", "exp2&lt;b&gt;"]  # of 80 and 72 passes; the derived row has none
    told = {order: [name for name in found[order].split(",") if name in names] for order in ("falling", "rising")}
    assert told == {"falling": names, "rising": names[::-1]}


@pytest.mark.program
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_policy_of_the_page_lets_its_own_script_run_and_no_other(page, tmp_path):
    strange = tmp_path / "strange.html"
    strange.write_text(page.read_text().replace("</body>", "<script>document.title = 'strange'</script></body>"))
    dom, console = browse(strange, tmp_path / "profile")
    assert "<title>strange" not in dom and len(console) == 1 and "Content Security Policy" in console[0]


@pytest.mark.program
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_browser_test_would_notice_errors(tmp_path):
    probed = tmp_path / "bad.html"
    probed.write_text(
        '<body><img src="data:image/png;base64,AAAA"><p style="width: 3000px">wide</p>'
        f"<script>missing();</script>{PROBE}</body>"
    )
    dom, console = browse(probed, tmp_path / "profile")
    assert 'data-broken="1"' in dom and 'data-page="wider"' in dom and any("missing is not defined" in line for line in console)
