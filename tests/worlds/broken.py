"""Parts of one's own that break a contract, each in one way; and parts that keep it."""

import torch

from operators.base import Operator
from tests.worlds.runs import load_analytic


class Plain(Operator):
    def forward(self, x):
        return 2 * x


class Complex(Operator):
    def forward(self, x):
        return torch.fft.fft2(x)


class Averaging(Operator):
    """Its measurement has one channel for each image of the batch."""

    def forward(self, x):
        return x.mean(1, keepdim=True).expand(-1, len(x), -1, -1)


class Dropping(Operator):
    def forward(self, x):
        return x.mean(0)


class Detached(Operator):
    def forward(self, x):
        return torch.from_numpy(x.detach().numpy() * 2)


class Rounding(Operator):
    def forward(self, x):
        return (x * 127.5).round()


class Crashing(Operator):
    def forward(self, x):
        return x @ torch.zeros(3, 3)


class NoTensor(Operator):
    def forward(self, x):
        return x.detach().numpy()


class Counting(Operator):
    def forward(self, x):
        return (x > 0).long()


class NoOperator:
    def __init__(self, sigma):
        self.sigma = sigma


class TotalLoss(Plain):
    def loss(self, x, y):
        return (self(x) - y).square().sum()


def flat_decoder(path, device, timestep_map, **_):
    return _changed(load_analytic(path, device, timestep_map), decode=lambda z: (z * 1.0).flatten(1))


def detached_decoder(path, device, timestep_map, **_):
    prior = load_analytic(path, device, timestep_map)
    return _changed(prior, decode=lambda z, decode=prior.decode: decode(z).detach())


def summed_denoiser(path, device, timestep_map, **_):
    return _changed(load_analytic(path, device, timestep_map), denoise=lambda z, sigma: z.sum(1))


def one_level(path, device, timestep_map, **_):
    prior = load_analytic(path, device, timestep_map)
    return _changed(prior, denoise=lambda z, sigma, denoise=prior.denoise: denoise(z, torch.full_like(sigma, float(sigma))))


def shapeless(path, device, timestep_map, **_):
    return object()


def _changed(prior, **methods):
    for name, method in methods.items():
        setattr(prior, name, method)
    return prior


def mean_colour(image):
    return image.mean((-2, -1))


def detached_colour(image):
    return image.detach().mean((-2, -1))


def one_colour(image):
    return image.mean((-3, -2, -1))


def framed_colour(image):
    return image.mean((-2, -1))[..., None]


def crashing_colour(image):
    raise ValueError("no colour\nin this image")
