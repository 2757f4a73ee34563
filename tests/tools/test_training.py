"""The training loop: a killed run that is started again ends where an undisturbed one does; ranks train one network."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.worlds import runs
from tools.demo_prior.training import ALONE, Trainer, cosine, step_seed
from utils import device as devices
from utils.errors import InputError
from utils.paths import PROJECT
from utils.running.ranks import Rank


def train(work, killed_at=None, steps=6, saved=2, rank=ALONE, batches_of=None, outputs=2, diverged_at=None, lr=0.1):
    """The averaged weights after a small regression; `killed_at` raises in that step.

    batches_of: ranks whose batches this one process takes together, instead of its own.
    """
    torch.manual_seed(0)
    model = torch.nn.Linear(4, outputs)
    optimisers = [torch.optim.AdamW([model.weight], lr=lr), torch.optim.SGD([model.bias], lr=0.3)]
    work.mkdir(exist_ok=True, parents=True)
    cfg = SimpleNamespace(work=work, device="cpu", seed=3, save_every=saved)
    trainer = Trainer(
        "line", cfg, model, optimisers, SimpleNamespace(steps=steps, ema_decay=0.9, warmup=40), lambda averaged: "saved", rank
    )

    def loss_of(generator):
        if trainer.step == killed_at:
            raise KeyboardInterrupt
        generators = [generator]
        if batches_of is not None:
            generators = [torch.Generator().manual_seed(step_seed(cfg.seed, trainer.step, index)) for index in batches_of]
        x = torch.cat([torch.randn(8, 4, generator=drawn) for drawn in generators])
        loss = (model(x) - x[:, :outputs]).square().mean()
        return loss * torch.nan if trainer.step == diverged_at else loss

    return trainer.run(loss_of).state_dict()


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    straight = train(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", killed_at=5)  # one step after the last checkpoint
    resumed = train(tmp_path / "killed")
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert (tmp_path / "killed/line.log").read_text() == "".join(f"line step {n}: saved\n" for n in (2, 4, 6))


def test_a_resumed_run_takes_the_rate_that_is_configured_now(tmp_path):
    """A training that has diverged is told to lower it."""
    start = train(tmp_path / "work", steps=2)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "work/line.pt", tmp_path / "other")
    as_before = train(tmp_path / "work", steps=3)["weight"]
    smaller = train(tmp_path / "other", steps=3, lr=1e-6)["weight"]
    moved, hardly = ((after - start["weight"]).abs().max() for after in (as_before, smaller))
    assert hardly < 0.25 * moved  # the average of the weights still moves towards where they are


def test_the_learning_rate_warms_up_and_falls_to_two_percent():
    assert [cosine(step, 1000, 4) for step in (0, 1)] == pytest.approx([0.25, 0.5], rel=1e-4)
    assert cosine(1000, 1000, 4) == pytest.approx(0.02)


def test_a_checkpoint_of_another_network_is_one_line(tmp_path):
    train(tmp_path / "work")
    with pytest.raises(InputError, match=r"line\.pt is of another network") as refused:
        train(tmp_path / "work", outputs=3)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", "half", {"model": {}}, [1], None, 7])
def test_a_checkpoint_that_a_power_loss_cut_is_one_line(tmp_path, content):
    train(tmp_path / "work")
    path = tmp_path / "work/line.pt"
    if content == "half":
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=r"line\.pt is damaged .*; remove it, and the same command makes it anew") as refused:
        train(tmp_path / "work")
    assert "\n" not in str(refused.value)


def test_a_training_that_diverges_ends_in_one_line_and_keeps_its_last_checkpoint(tmp_path):
    with pytest.raises(InputError, match="line: the loss is nan in step 3, the training has diverged; lower its learning"):
        train(tmp_path / "work", diverged_at=3)
    assert torch.load(tmp_path / "work/line.pt", weights_only=True)["step"] == 2


@pytest.mark.program
def test_two_ranks_train_one_network_on_both_batches(tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    command = [*torchrun, "-m", "tests.tools.test_training", str(tmp_path / "ranks")]
    done = subprocess.run(command, cwd=PROJECT, env=runs.environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"ranks/{index}.weights", weights_only=True) for index in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    together = train(tmp_path / "together", batches_of=(0, 1))
    alone = train(tmp_path / "alone")
    for key in first:
        torch.testing.assert_close(first[key], together[key], atol=1e-5, rtol=1e-5)
        assert (first[key] - alone[key]).abs().max() > 1e-3, "the second batch must count"
    assert (tmp_path / "ranks/line.log").read_text().count("step 6") == 1, "one rank reports"


def one_rank(work):
    """What torchrun starts for the test above."""
    rank = Rank.of_this_process()
    devices.exchange_gradients("cpu", rank.local)
    torch.save(train(work, rank=rank), work / f"{rank.index}.weights")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    one_rank(Path(sys.argv[1]))
