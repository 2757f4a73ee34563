"""The program as a user runs it, on a tiny prior: what it writes, repeats, continues."""

import json
import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.worlds import runs
from utils.errors import InputError
from utils.paths import PROJECT
from utils.records.files import read_record

pytestmark = pytest.mark.program

PER_PARTICLE = {"psnr": ("sample",), "ssim": ("sample",), "modes": ("label", "psnr_aligned")}


def without_times(metrics):
    """metrics.json less what may differ between equal runs."""
    kept = {k: v for k, v in metrics.items() if k not in ("time", "cost", "metadata", "vram")}
    return {**kept, "image_ids": metrics["metadata"]["image_ids"]}


def test_everything_a_run_promises_is_there(run):
    folder, metrics = run(pictures=True)
    for name in (
        "config.yaml",
        "metrics.json",
        "eval.md",
        "grid_results.png",
        "trace.png",
        "run.log",
        "records/00000.npz",
        "records/00001.npz",
        "samples/00001_p3.png",
    ):
        assert (folder / name).stat().st_size > 0, name
    config = OmegaConf.load(folder / "config.yaml")
    assert config.num_samples == 4 and config.data.end_id == 2 and config.sampler.diffusion_scheduler_config.num_steps == 2
    assert "best of 4" in (folder / "eval.md").read_text()


def test_metrics_json_has_the_documented_keys(run):
    _, m = run()
    assert m["schema"] == 1
    assert set(m) == {
        "schema",
        "metadata",
        "psnr",
        "ssim",
        "lpips",
        "modes",
        "selection",
        "loss",
        "gradient_error",
        "diversity",
        "time",
        "vram",
        "cost",
        "pruning",
        "optimization",
        "recombination",
        "summary",
        "diverged",
    }
    assert {
        "name",
        "seed",
        "overrides",
        "git_commit",
        "versions",
        "num_images",
        "image_ids",
        "num_samples",
        "device",
        "gpu",
    } <= set(m["metadata"])
    assert m["metadata"]["seed"] == 42 and m["metadata"]["image_ids"] == [0, 1] and m["metadata"]["num_samples"] == 4
    assert m["metadata"]["device"]["type"] == "cpu" and m["metadata"]["gpu"]["peak_vram_mb"] is None
    for block, keys in PER_PARTICLE.items():
        for key in keys:
            assert np.shape(m[block][key]) == (2, 4), (block, key)
    for name in ("psnr", "ssim"):
        sample = np.array(m[name]["sample"])
        np.testing.assert_allclose(m[name]["mean"], sample.mean(1))
        np.testing.assert_allclose(m[name]["std"], sample.std(1, ddof=1))
        np.testing.assert_allclose(m[name]["max"], sample.max(1))
    assert np.shape(m["diversity"]["pairwise_distance"]) == (2, 3) and np.min(m["diversity"]["pairwise_distance"]) > 0
    assert np.shape(m["time"]["per_step_s"]) == (2, 3)
    phase = m["time"]["phases"]["sampling"]
    assert phase["steps"] == 6 and phase["decoder_forward_backward"] == 6 and phase["denoiser_calls"] == 6
    assert m["time"]["total_s"] == pytest.approx(phase["time_s"]) == pytest.approx(sum(m["time"]["per_image_s"]))
    assert m["vram"] == {"sampling_peak_mb": pytest.approx(m["metadata"]["device"]["peak_memory_mb"])}
    assert m["cost"]["time_x_memory_mb_s"] == pytest.approx(phase["time_s"] * m["vram"]["sampling_peak_mb"])
    assert m["diverged"] == [[False] * 4] * 2
    picked = m["selection"]["picked"]
    assert m["selection"]["psnr"] == [m["psnr"]["sample"][i][p] for i, p in enumerate(picked)]
    np.testing.assert_allclose(np.array(m["loss"]["sample"]) / np.array(m["loss"]["noise_floor"])[:, None], m["loss"]["ratio"])
    assert picked == np.argmin(m["loss"]["ratio"], axis=1).tolist()


def test_the_same_command_twice_gives_the_same_result(run):
    folder, first = run()
    again_folder, again = run("name=again")
    assert without_times(first) == without_times(again)
    for name in ("00000", "00001"):
        a, b = (read_record(f / "records" / f"{name}.npz")[1] for f in (folder, again_folder))
        assert all(np.array_equal(a[key], b[key]) for key in ("y", "z", "images", "truth"))


def test_single_runs_equal_the_batch(run):
    """num_samples=1 first_particle=k is particle k of the batch of four, up to float32 kernels over this short run."""
    short = (
        "data.end_id=1",
        "sampler.annealing_scheduler_config.num_steps=1",
        "task.demo_langevin.mcmc_sampler_config.num_steps=1",
    )
    folder, _ = run(*short)
    together = read_record(folder / "records" / "00000.npz")[1]["z"]
    for k in range(4):
        single, _ = run(*short, "num_samples=1", f"first_particle={k}", f"name=single{k}")
        record, arrays = read_record(single / "records" / "00000.npz")
        assert record["particles"] == [k]
        np.testing.assert_allclose(arrays["z"][0], together[k], rtol=1e-5, atol=1e-4)


def test_images_in_one_batch_equal_images_one_by_one(run):
    short = (
        "data.end_id=3",
        "num_samples=2",
        "sampler.annealing_scheduler_config.num_steps=1",
        "task.demo_langevin.mcmc_sampler_config.num_steps=1",
    )
    one, metrics_one = run(*short)
    three, metrics_three = run(*short, "batch_images=3", "name=three")
    for name in ("00000", "00001", "00002"):
        a, b = (read_record(f / "records" / f"{name}.npz")[1] for f in (one, three))
        assert np.array_equal(a["y"], b["y"])
        np.testing.assert_allclose(a["z"], b["z"], rtol=1e-5, atol=1e-4)
    assert metrics_three["time"]["phases"]["sampling"]["decoder_forward_backward"] == 1


def test_ten_images_extend_without_recomputing(run):
    folder, _ = run("data.end_id=2")
    before = [(folder / "records" / f"0000{i}.npz").stat().st_mtime_ns for i in (0, 1)]
    _, metrics = run("data.end_id=3")
    assert metrics["metadata"]["image_ids"] == [0, 1, 2]
    assert [(folder / "records" / f"0000{i}.npz").stat().st_mtime_ns for i in (0, 1)] == before
    _, straight = run("data.end_id=3", "name=straight")
    assert without_times(metrics) == without_times(straight)


def test_shards_make_one_result(run):
    run("data.end_id=3", "shard=1/2")
    _, sharded = run("data.end_id=3", "shard=0/2")
    _, straight = run("data.end_id=3", "name=straight")
    assert without_times(sharded) == without_times(straight)


def test_another_config_under_the_same_name_is_refused(run):
    folder, _ = run()
    before = {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file() and f.name != "run.log"}
    with pytest.raises(InputError, match="num_samples is 4 there and 2 here"):
        run("num_samples=2")
    assert {f: f.stat().st_mtime_ns for f in before} == before


def test_details_of_a_part_that_is_off_do_not_make_another_config(run):
    folder, first = run()
    before = (folder / "records" / "00000.npz").stat().st_mtime_ns
    _, again = run("repulsion.place=chain", "pruning.fill=clone", "optimization.lr=1", "pruning_keep=1")
    assert (folder / "records" / "00000.npz").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="repulsion_scale is 0.0 there and 0.1 here"):
        run("repulsion_scale=0.1")


def test_resume_false_keeps_the_old_result_aside(run):
    folder, first = run()
    _, second = run("resume=false", "num_samples=2")
    assert second["metadata"]["num_samples"] == 2
    assert json.loads((folder.with_name("run.1") / "metrics.json").read_text()) == first


def test_a_damaged_record_is_set_aside_and_its_image_sampled_again(run):
    folder, first = run()
    path = folder / "records" / "00001.npz"
    path.write_bytes(path.read_bytes()[:200])
    _, again = run()
    assert without_times(first) == without_times(again)
    assert (folder / "records" / "00001.npz.damaged").stat().st_size == 200


def test_the_grid_is_paged_at_ten_images(run):
    folder, _ = run("data.end_id=11", "num_samples=1", "sampler.annealing_scheduler_config.num_steps=1", pictures=True)
    assert {p.name for p in folder.glob("*.png")} == {"grid_results.png", "grid_results_2.png", "trace.png", "trace_2.png"}
    with Image.open(folder / "grid_results.png") as first, Image.open(folder / "grid_results_2.png") as second:
        assert first.height > 4 * second.height


@pytest.mark.parametrize("error", [RuntimeError("no font"), OSError(28, "No space left on device")])
def test_a_drawing_that_fails_costs_neither_numbers_nor_the_exit_status(run, monkeypatch, capsys, error):
    from utils.figures import run as run_figures

    def fails(records, config):
        raise error

    monkeypatch.setitem(run_figures.DRAWINGS, "trace", fails)
    folder, metrics = run(pictures=True)
    assert metrics["metadata"]["num_images"] == 2 and (folder / "eval.md").is_file()
    assert "the pictures cannot be drawn" in (folder / "run.log").read_text()
    printed = capsys.readouterr().out
    assert "label-free pick" in printed and "pictures: " not in printed


def test_neither_a_notebook_nor_a_plain_terminal_ends_the_program(tiny, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: no-such-font\n")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path)}
    done = runs.command(*tiny, **plain, **notebook)
    folder = tmp_path / "results/run"
    assert "cannot be drawn" not in done.stderr and (folder / "grid_results.png").is_file()
    assert "\\xb1" in done.stdout and "±" in (folder / "eval.md").read_text("utf-8")
    command = [sys.executable, "tools/parse_metrics.py", str(folder), "--out", str(tmp_path / "table.md")]
    for tool in (command, command[:3]):
        done = subprocess.run(tool, cwd=PROJECT, env=runs.environment(**plain), capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == ""
    assert "±" in (tmp_path / "table.md").read_text("utf-8") and "\\xb1" in done.stdout


def test_one_particle_has_no_distance_and_no_spread(run):
    _, metrics = run("num_samples=1")
    assert metrics["diversity"]["pairwise_distance"] == [[None] * 3] * 2
    assert metrics["psnr"]["std"] == [0.0, 0.0]


def test_a_diverged_particle_is_reported_and_scored_null(run, monkeypatch):
    from tests.worlds.analytic import PoisonedNoise
    from utils.running import build

    _, healthy = run()
    monkeypatch.setattr(build, "KeyedNoise", PoisonedNoise)
    folder, metrics = run("name=poisoned")
    assert metrics["diverged"] == [[False, True, False, False]] * 2
    for i in range(2):
        assert metrics["psnr"]["sample"][i][1] is None and metrics["modes"]["label"][i][1] is None
        assert metrics["selection"]["picked"][i] != 1
        kept = [metrics["psnr"]["sample"][i][k] for k in (0, 2, 3)]
        assert kept == [healthy["psnr"]["sample"][i][k] for k in (0, 2, 3)]
    assert "particle 1 became non-finite" in (folder / "run.log").read_text()
    assert "NaN" not in (folder / "metrics.json").read_text()
