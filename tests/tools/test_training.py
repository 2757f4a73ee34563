"""The training loop: a killed run that is started again ends where an undisturbed one does."""

from types import SimpleNamespace

import pytest
import torch

from tools.demo_prior.training import Trainer, cosine


class Settings(SimpleNamespace):
    def get(self, key, default):
        return getattr(self, key, default)


def train(work, killed_at=None, steps=6, saved=2):
    """The averaged weights after a small regression; `killed_at` raises in that step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimisers = [torch.optim.AdamW([model.weight], lr=0.1), torch.optim.SGD([model.bias], lr=0.3)]
    work.mkdir(exist_ok=True)
    cfg = SimpleNamespace(work=work, device="cpu", seed=3, save_every=saved)
    trainer = Trainer("line", cfg, model, optimisers, Settings(steps=steps, ema_decay=0.9), lambda averaged: "saved")

    def loss_of(generator):
        if trainer.step == killed_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 4, generator=generator)
        return (model(x) - x[:, :2]).square().mean()

    return trainer.run(loss_of).state_dict()


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    straight = train(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", killed_at=5)  # one step after the last checkpoint
    resumed = train(tmp_path / "killed")
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)
    assert (tmp_path / "killed/line.log").read_text() == "".join(f"line step {n}: saved\n" for n in (2, 4, 6))


def test_the_learning_rate_warms_up_and_falls_to_two_percent():
    assert [cosine(step, 1000, 4) for step in (0, 1)] == pytest.approx([0.25, 0.5], rel=1e-4)
    assert cosine(1000, 1000, 4) == pytest.approx(0.02)
