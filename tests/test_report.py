"""The report: complete, self-contained, and shown without errors by a real browser."""
import re
import shutil
import subprocess
import sys

import pytest

from tests.synthetic_runs import write_run
from tools import report
from utils import command_line

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
LABELS = [["0", "failed", "180", "mixed"], ["failed", "0", "0", "failed"]]
# appended to a copy of the page: what the browser made of its pictures
PROBE = """<script>addEventListener("load", () => { const all = [...document.images];
document.body.dataset.images = all.length; document.body.dataset.broken = all.filter(i => !i.naturalWidth).length; });</script>"""


@pytest.fixture
def page(tmp_path, composed, monkeypatch, capsys):
    """page(*options) -> path of the report of two runs."""
    write_run(tmp_path / "runs", composed, LABELS, name="exp0_base")
    write_run(tmp_path / "runs", composed, [["0", None, "180", None]] * 2, name="exp2<b>", overrides=("pruning_step=200",))

    def write(*options):
        out = tmp_path / "out" / "report.html"
        monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "runs"), "--out", str(out), *options])
        command_line.run(report.main)
        assert capsys.readouterr().out == f"{out}\n"
        return out
    return write


def test_the_page_has_tables_figures_pictures_and_configs(page):
    text = page("--best-of", "2").read_text()
    for title in ("PSNR in dB", "SSIM and LPIPS as is", "Success and modes", "Cost per image", "Phases, per image",
                  "Paired differences to exp0_base"):
        assert f"<h3>{title}" in text
    assert len(re.findall(r'<img src="data:image/png;base64,', text)) == 5 + 2
    assert text.count("<details>") == 2 and "num_samples: 4" in text and "<b>25.05</b> ± 0.07" in text
    assert "exp0_base: best of 2 of 4" in text


def test_the_page_needs_nothing_from_outside_and_names_are_escaped(page):
    text = page().read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text) and "url(" not in text and "<script" not in text
    assert "exp2&lt;b&gt;" in text and "exp2<b>" not in text


def test_only_what_differs_is_among_the_differences(page):
    text = page().read_text()
    section = text[text.index("<h3>Differences"):text.index("<h3>Merged")]
    assert re.findall(r"<code>(.*?)</code>", section) == ["pruning_step"]
    assert re.findall(r"<td>(-?\d+)</td>", section) == ["-1", "200"]


def test_runs_without_records_still_make_a_page(page, tmp_path):
    for name in ("exp0_base", "exp2<b>"):
        shutil.rmtree(tmp_path / "runs" / name / "records")
    text = page().read_text()
    assert "hold no pictures" in text and text.count("<img") == 5


def test_the_grid_of_the_run_stands_in_for_missing_pictures(page, tmp_path):
    shutil.rmtree(tmp_path / "runs" / "exp0_base" / "records")
    (tmp_path / "runs" / "exp0_base" / "grid_results.png").write_bytes(b"\x89PNG grid")
    assert "exp0_base: results." in page().read_text()


def browse(path, profile):
    """(DOM as text, console lines) of a page in a headless browser that cannot reach any host."""
    done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                           "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--dump-dom", path.as_uri()],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_the_page_without_errors(page, tmp_path):
    path = page()
    probed = tmp_path / "probed.html"
    probed.write_text(path.read_text().replace("</body>", f"{PROBE}</body>"))
    dom, console = browse(probed, tmp_path / "profile")
    assert console == []
    assert 'data-images="7"' in dom and 'data-broken="0"' in dom


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_browser_test_would_notice_errors(tmp_path):
    probed = tmp_path / "bad.html"
    probed.write_text(f'<body><img src="data:image/png;base64,AAAA"><script>missing();</script>{PROBE}</body>')
    dom, console = browse(probed, tmp_path / "profile")
    assert 'data-broken="1"' in dom and any("missing is not defined" in line for line in console)
