"""A particle is diverged if its latent, its picture or its loss is not finite: each alone is enough."""

import pytest

pytestmark = pytest.mark.program

PARTS = {
    "latent": lambda result: result.particles.z,
    "picture": lambda result: result.image,
    "loss": lambda result: result.loss,
}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("part", PARTS)
def test_one_part_that_is_not_finite_is_enough(part, value, run, monkeypatch):
    import sampler

    original = sampler.LatentDAPS.sample

    def sample(*arguments, **kwargs):
        result = original(*arguments, **kwargs)
        PARTS[part](result)[1].view(-1)[0] = value
        return result

    monkeypatch.setattr(sampler.LatentDAPS, "sample", sample)
    _, metrics = run("num_samples=3", "data.end_id=1")
    assert metrics["diverged"] == [[False, True, False]]
    assert metrics["psnr"]["sample"][0][1] is None and metrics["psnr"]["sample"][0][0] is not None
    assert metrics["selection"]["picked"][0] in (0, 2)
