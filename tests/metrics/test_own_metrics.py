"""A metric of one's own through the whole program, and through tools/add_metric.py for runs that are finished."""

import copy
import csv
import io
import json
import shutil
import sys

import numpy as np
import pytest

from sampler import LatentDAPS
from tests.worlds.own_metrics import MeanError
from tools import add_metric, parse_metrics, report
from utils.analysis import runs
from utils.command_line import run as call
from utils.errors import InputError
from utils.metrics.pixels import from_pixels
from utils.metrics.registry import ORDER
from utils.records.files import read_record, record_path, write_record
from utils.records.metrics import Metrics, check_metrics

OWN = "+metrics.mean_error._target_=tests.worlds.own_metrics.MeanError"
MISFIT = "+metrics.misfit._target_=tests.worlds.own_metrics.Misfit"
BROKEN = {
    "Crashing": ": it fails for (2, 3, 16, 16) (ValueError: no picture) at tests/worlds/own_metrics.py:",
    "OneForAll": ": it gives () for (2, 3, 16, 16); the first axis belongs to the particles",
    "PerChannel": ": gives (2, 3) for two images; return one number for each, (P,)",
    "Words": ": it gives no tensor but list for (2, 3, 16, 16); return a tensor",
    "Infinite": ": gives [-inf, inf] for two ordinary images; return finite numbers",
    "Nothing": ": gives nothing for two images; return one number for each, (P,)",
    "Upwards": ": direction=up: input should be 'max' or 'min'",
    "NoMetric": "._target_=tests.worlds.own_metrics.NoMetric: is no utils.metrics.base.Metric; subclass it",
    "Missing": "._target_=tests.worlds.own_metrics.Missing: cannot be built",
}


@pytest.fixture
def tool(monkeypatch, capsys):
    """tool(module, *arguments) -> (status, stdout, stderr) of a command-line tool."""

    def start(module, *arguments):
        monkeypatch.setattr(sys, "argv", ["tool", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            call(module.main)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return start


@pytest.fixture
def both(run):
    """(folder, metrics) of a run with both metrics."""
    return run(OWN, "+metrics.mean_error.factor=2.0", MISFIT, "data.end_id=1")


@pytest.mark.heavy
def test_it_stands_in_record_and_metrics_json_like_one_of_ours(both):
    folder, metrics = both
    record, arrays = read_record(record_path(folder, 0))
    pictures, truth = (arrays[name].astype(float) for name in ("images", "truth"))
    expected = 2 * np.abs(pictures - truth).mean((1, 2, 3))
    assert record["scores"]["mean_error"] == pytest.approx(expected, abs=1.0)  # pictures have 8 bits
    assert (
        list(metrics["mean_error"]) == list(metrics["psnr"])
        and metrics["mean_error"]["sample"][0] == record["scores"]["mean_error"]
    )
    assert metrics["mean_error"]["min"] == [min(record["scores"]["mean_error"])]
    about = {"title": "mean error", "unit": "levels", "direction": "min", "digits": 1, "of": "image"}
    assert metrics["metrics"]["mean_error"] == record["metrics"]["mean_error"] == about
    assert all(value > 0 for value in record["scores"]["misfit"])
    rows = [line.split(" | ") for line in (folder / "eval.md").read_text().splitlines() if line.startswith("| m")]
    best, picked = min(expected), metrics["selection"]["picked"][0]
    assert float(rows[1][1].split(" ± ")[0]) == pytest.approx(best, abs=1.0) and rows[1][0] == "| mean error (levels)"
    assert float(rows[1][3].split()[0]) == pytest.approx(expected[picked], abs=1.0)
    by_truth = int(np.argmax(record["modes"]["psnr_aligned"]))
    assert rows[2][0] == "| misfit" and rows[2][1] == f"{record['scores']['misfit'][by_truth]:.3f}"


@pytest.mark.heavy
def test_its_lists_are_held_to_the_particles(both):
    metrics = copy.deepcopy(both[1])
    metrics["misfit"]["sample"][0].pop()
    with pytest.raises(InputError, match="x: damaged: misfit.sample has 3 entries for 4 particles"):
        check_metrics(metrics, "x")
    del metrics["misfit"]
    with pytest.raises(InputError, match="x: damaged: misfit: "):
        check_metrics(metrics, "x")


@pytest.mark.heavy
def test_tables_csv_and_report_show_it(both, tool, tmp_path):
    folder, metrics = both
    _, text, _ = tool(parse_metrics, folder, "--tables", "metrics")
    assert "Metrics of one's own" in text and "mean error (levels): best" in text and "misfit: pick" in text
    assert f"{metrics['mean_error']['min'][0]:.1f}" in text
    (row,) = csv.DictReader(io.StringIO(tool(parse_metrics, folder, "--format", "csv")[1]))
    assert float(row["metrics.mean_error.mean.mean"]) == pytest.approx(metrics["mean_error"]["mean"][0])
    (image,) = csv.DictReader(io.StringIO(tool(parse_metrics, folder, "--format", "csv", "--per-image")[1]))
    assert float(image["metrics.mean_error.best"]) == metrics["mean_error"]["min"][0]
    (one,) = json.loads(tool(parse_metrics, folder, "--format", "json")[1])
    assert one["metrics"]["misfit"]["direction"] == "min"
    tool(report, folder, "--out", tmp_path / "report.html")
    assert "mean error (levels): best" in (tmp_path / "report.html").read_text()


@pytest.mark.heavy
def test_two_of_the_particles_would_have_had_an_expected_best(run):
    folder, metrics = run(OWN, "data.end_id=1")
    from utils.analysis.arguments import read_experiments

    _, two = read_experiments([folder], best_of=2)
    (values,) = two.units.values()
    best, *_, worst = sorted(metrics["mean_error"]["sample"][0])
    assert best < values["metrics.mean_error.best"] < worst and values["metrics.mean_error.pick"] is not None


@pytest.mark.heavy
def test_a_run_without_it_continues_with_nulls_where_it_was_not_asked(run):
    _, before = run("data.end_id=1")
    folder, after = run("data.end_id=2", OWN)
    assert "mean_error" not in before and "metrics" not in before
    assert after["mean_error"]["sample"][0] == [None] * 4 and after["mean_error"]["mean"][0] is None
    assert None not in after["mean_error"]["sample"][1]
    assert runs.load(folder, from_records=True).metrics.content() == after
    _, again = run("data.end_id=3")  # and left out again
    assert again["mean_error"]["sample"][2] == [None] * 4 and again["metrics"] == after["metrics"]


@pytest.mark.heavy
def test_of_a_measurement_it_is_null_or_compares_with_y(run, tmp_path):
    folder, _ = run("data.end_id=1")
    (tmp_path / "measured").mkdir()
    np.save(tmp_path / "measured" / "0.npy", read_record(record_path(folder, 0))[1]["y"])
    where = ("data=measurement", f"data.root={tmp_path}/measured", "data.resolution=16", "name=measured", "data.end_id=null")
    folder, metrics = run(OWN, MISFIT, *where)
    assert metrics["mean_error"]["sample"] == [[None] * 4] and None not in metrics["misfit"]["sample"][0]
    text = (folder / "eval.md").read_text()
    assert "| mean error (levels) | not available" in text and "| misfit | – |" in text


@pytest.mark.heavy
@pytest.mark.parametrize("name", BROKEN)
def test_one_that_breaks_the_contract_ends_in_one_line_before_sampling(run, monkeypatch, name):
    monkeypatch.setattr(LatentDAPS, "sample", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(InputError) as caught:
        run(f"+metrics.mine._target_=tests.worlds.own_metrics.{name}")
    assert f"metrics.mine{BROKEN[name]}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["psnr", "loss", "r_factor", "modes", "metrics", "mechanisms", "schema", "diverged", "scores"])
def test_a_name_that_is_taken_is_refused(run, name):
    with pytest.raises(InputError, match=f"metrics.{name}: is a key of metrics.json already; choose another name"):
        run(f"+metrics.{name}._target_=tests.worlds.own_metrics.MeanError")


@pytest.mark.heavy
def test_every_key_of_metrics_json_is_taken(run):
    """Blocks of one's own stand between them."""
    _, metrics = run("data.end_id=1", "num_samples=2")
    known = {field.alias or key for key, field in Metrics.model_fields.items()} | {metric.name for metric in ORDER}
    assert set(metrics) <= known


@pytest.mark.heavy
def test_an_exception_in_the_middle_of_a_run_names_the_metric(run, monkeypatch):
    monkeypatch.setattr(MeanError, "__call__", lambda self, x, truth: x.new_zeros(2))
    with pytest.raises(InputError, match=r"metrics.mean_error: gives \(2,\) for 4 images; return one number for each"):
        run(OWN, "data.end_id=1")


@pytest.mark.heavy
def test_it_is_computed_for_a_finished_run_from_its_records(run, tool, both, tmp_path):
    """As the run itself would have written it, up to the 8 bits of its pictures; arrays and other blocks stay."""
    with_it, metrics = both
    shutil.move(with_it, tmp_path / "results/with_it")
    folder, _ = run("data.end_id=1")
    before, arrays = read_record(record_path(folder, 0))
    mean_error = "mean_error=tests.worlds.own_metrics.MeanError"
    status, out, err = tool(add_metric, mean_error, folder, "--set", "factor=2.0")
    assert (status, err) == (0, "") and out == f"{folder}: mean_error of 1 image\n"
    assert tool(add_metric, "misfit=tests.worlds.own_metrics.Misfit", folder)[0] == 0
    record, after = read_record(record_path(folder, 0))
    assert all((arrays[name] == after[name]).all() for name in arrays)
    assert record["digests"].items() > before["digests"].items() and "module tests.worlds.own_metrics" in record["digests"]
    same = {"scores": before["scores"], "metrics": {}, "digests": before["digests"]}
    assert {**record, **same} == {**before, **same}
    added = json.loads((folder / "metrics.json").read_text())
    assert added["mean_error"]["sample"][0] == pytest.approx(metrics["mean_error"]["sample"][0], abs=1.0)
    assert added["misfit"]["sample"][0] == pytest.approx(metrics["misfit"]["sample"][0], abs=0.05)
    assert added["metrics"] == metrics["metrics"] and "mean error (levels)" in (folder / "eval.md").read_text()
    assert "have mean_error already" in tool(add_metric, mean_error, folder)[2]
    _, continued = run("data.end_id=2")  # its fingerprint is what it was
    assert continued["mean_error"]["sample"][0] == added["mean_error"]["sample"][0]


@pytest.mark.heavy
def test_one_of_ours_is_added_where_older_records_lack_it(run, tool):
    folder, metrics = run("data.end_id=2")
    for image in (0, 1):
        record, arrays = read_record(record_path(folder, image))
        del record["scores"]["gradient_error"], record["r_factor"]
        write_record(folder, record, arrays)
    for name in ("gradient_error", "r_factor"):
        assert tool(add_metric, name, folder)[0] == 0
    added = json.loads((folder / "metrics.json").read_text())
    for i in (0, 1):
        assert added["gradient_error"]["sample"][i] == pytest.approx(metrics["gradient_error"]["sample"][i], abs=0.02)
        assert added["loss"]["r_factor"][i] == pytest.approx(metrics["loss"]["r_factor"][i], abs=0.02)
    assert "metrics" not in added


@pytest.mark.heavy
def test_the_name_alone_is_enough_where_the_runs_config_has_the_class(run, tool):
    run("data.end_id=1")
    folder, _ = run("data.end_id=2", OWN)
    name = "tests.worlds.own_metrics.MeanError"
    status, _, err = tool(add_metric, "mean_error", folder)
    assert status == 2 and f"metrics.mean_error._target_={name}: is no class of this project" in err
    assert tool(add_metric, "mean_error", folder, "--trust", name) == (0, f"{folder}: mean_error of 1 image\n", "")
    assert None not in json.loads((folder / "metrics.json").read_text())["mean_error"]["sample"][0]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "arguments, line",
    [
        (("sharpness",), "metric=sharpness: choose from psnr, ssim"),
        (("psnr=tests.worlds.own_metrics.MeanError",), "metrics.psnr: is a key of metrics.json already"),
        (("mine=tests.worlds.own_metrics.Crashing",), "mine: fails for image 0 (ValueError: no picture)"),
        (("mine=tests.worlds.own_metrics.PerChannel",), "metrics.mine: gives (4, 3) for 4 images"),
        (("mine=tests.worlds.own_metrics.MeanError", "--set", "factor"), "set=factor: write --set key=value"),
        (("lpips_alex",), "lpips_alex: cannot be had of image 0"),
    ],
)
def test_what_cannot_be_added_ends_in_one_line_and_changes_nothing(run, tool, arguments, line, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    folder, _ = run("data.end_id=1")
    before = {path: path.read_bytes() for path in (record_path(folder, 0), folder / "metrics.json")}
    metric, *options = arguments
    status, _, err = tool(add_metric, metric, folder, *options)
    assert status == 2 and f"error: {line}" in err and err.count("\n") == err.count("LPIPS is left out") + 1
    assert {path: path.read_bytes() for path in before} == before


def test_pictures_of_8_bits_come_back_as_images():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    x = from_pixels(pixels)
    assert x.shape == (1, 3, 16, 16) and x.min() == -1 and x.max() == 1
    from utils.metrics.pixels import to_pixels

    assert (to_pixels(x) == pixels).all()
