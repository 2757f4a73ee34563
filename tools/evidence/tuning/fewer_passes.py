"""Samples as posterior_sample.py does, with a change to the inner chain that was tried for fewer passes and left out.

    python tools/evidence/tuning/fewer_passes.py curvature 0.5 gpu=-1 sampler=fast data.end_id=16 name=curvature_0.5

The change is not part of the config, so it has to be part of the name=. Changes and their one number:
  low_frequencies R  the loss on a disc of the spectrum that grows from radius R of the corner's to all of it over the
                     first half of the annealing
  curvature C        step size C / L; L is the curvature along the gradient, from one more pass per annealing step than the
                     gradient that it starts with
  preconditioned P   a step size per entry of the latent: magnitude of the gradient, smoothed, to the power -P
"""

from tools.evidence.tuning.changed import sample
from utils.command_line import Parser, run

OFFSET = 0.05  # length in the latent over which the curvature is measured
LIMITS = (0.2, 5.0)  # of a step size from the curvature, relative to the learning rate
SPREAD = (0.25, 4.0)  # of a preconditioned one


def changed(change, number):
    """The class that takes the place of sampler.LatentDAPS."""
    import torch
    import torch.nn.functional as F

    from sampler import LatentDAPS

    class Disc:
        """The operator with a loss on part of its centred spectrum."""

        def __init__(self, operator, share):
            self.operator, self.share = operator, share

        def loss(self, x, y):
            axes = [(torch.arange(n) - n // 2) / (n / 2) for n in y.shape[-2:]]
            radius = (axes[0][:, None].square() + axes[1].square()).sqrt() / 2**0.5  # (H', W'), 1 in the corner
            return ((self.operator(x) - y) * (radius <= self.share).to(y.device)).square().flatten(1).sum(1)

    class LowFrequencies(LatentDAPS):
        def inner_chain(self, particles, z0hat, s, acting=()):
            whole, done = self.operator, 2 * s.step / (len(self.sigmas) - 1)
            if done < 1:
                self.operator = Disc(whole, number + (1 - number) * done)
            try:
                return super().inner_chain(particles, z0hat, s, acting)
            finally:
                self.operator = whole

    class Curvature(LatentDAPS):
        def inner_chain(self, particles, z0hat, s, acting=()):
            gradient, _, _ = self.data_gradient(particles.at(z0hat))
            along = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            beyond, _, _ = self.data_gradient(particles.at(z0hat + OFFSET * along))
            curvature = (beyond - gradient).flatten(1).norm(dim=1) / OFFSET / self.chain.tau**2 + 1 / s.sigma**2  # (P,)
            low, high = (limit * s.lr for limit in LIMITS)
            s.lr = (number / curvature).view(-1, 1, 1, 1).clamp(low, high)
            return super().inner_chain(particles, z0hat, s, acting)

    class Preconditioned(LatentDAPS):
        def inner_chain(self, particles, z0hat, s, acting=()):
            gradient, _, _ = self.data_gradient(particles.at(z0hat))
            square = F.avg_pool2d(F.pad(gradient.square(), (1, 1, 1, 1), mode="replicate"), 3, 1)  # (P, C, h, w)
            self.square = square if s.step == 0 else 0.7 * self.square + 0.3 * square
            scale = (self.square + 1e-3 * self.square.mean((1, 2, 3), keepdim=True)) ** (-number / 2)
            scale = scale / scale.log().mean((1, 2, 3), keepdim=True).exp()
            s.lr = s.lr * scale.clamp(*SPREAD)
            return super().inner_chain(particles, z0hat, s, acting)

    return {"low_frequencies": LowFrequencies, "curvature": Curvature, "preconditioned": Preconditioned}[change]


def main():
    parser = Parser(prog="fewer_passes.py", description=__doc__.splitlines()[0])
    parser.add_argument("change", choices=("low_frequencies", "curvature", "preconditioned"))
    parser.add_argument("number", type=float)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()

    def change():
        import sampler

        sampler.LatentDAPS = changed(args.change, args.number)

    sample(args.change, args.overrides, change)


if __name__ == "__main__":
    run(main)
