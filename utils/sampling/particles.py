"""The state of all particles of a batch, and the only place that slices it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch


@dataclass
class Particles:
    """P particles of the images of one batch; the first axis of every field is P.

    z:     (P, C, h, w) current latents, on the device
    y:     (P, ...) measurement of each particle's image, on the device
    image: (P,) int64, CPU: the id of the image that the particle belongs to
    index: (P,) int64, CPU: the particle's number within its image
    parent: (P,) int64, CPU: the number of the particle that it descends from, -1 for those at the start
    level: (P,) int64, CPU: 0 at the start (the coarsest), one more for a child than for its parent
    velocity: (P, C, h, w) what a chain with keep_velocity hands to the next annealing step, None elsewhere
    """

    z: torch.Tensor
    y: torch.Tensor
    image: torch.Tensor
    index: torch.Tensor
    velocity: torch.Tensor | None = None
    parent: torch.Tensor = None  # type: ignore[assignment]  # never None: nobody descends from anyone
    level: torch.Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.parent is None:
            self.parent, self.level = torch.full_like(self.index, -1), torch.zeros_like(self.index)

    @classmethod
    def start(
        cls,
        y: torch.Tensor,
        image_ids: Sequence[int],
        num_samples: int,
        first_particle: int,
        latent_shape: Sequence[int],
        dtype: torch.dtype,
    ) -> Self:
        """Expand the (N, ...) measurements of N images to N * num_samples particles with empty latents."""
        count = len(image_ids)
        return cls(
            z=torch.empty(count * num_samples, *latent_shape, dtype=dtype, device=y.device),
            y=y.repeat_interleave(num_samples, dim=0),
            image=torch.as_tensor(image_ids).repeat_interleave(num_samples),
            index=torch.arange(first_particle, first_particle + num_samples).repeat(count),
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The particles of several groups, one group after the other."""
        names = [f.name for f in fields(cls) if getattr(parts[0], f.name) is not None]
        return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    @property
    def per_image(self) -> int:
        """Particles of each image; what compares particles needs the same number of all images."""
        return len(self) // len(set(self.image.tolist()))

    def at(self, z: torch.Tensor) -> Self:
        """The same particles at other latents."""
        return replace(self, z=z)

    def __len__(self) -> int:
        return len(self.z)

    def select(self, keep: torch.Tensor) -> Self:
        """The particles at positions `keep`, a 1-D integer tensor; everything per particle is sliced together."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: x[keep.to(x.device)] for name, x in tensors.items() if x is not None})

    def branch(self, count: int, first: int) -> Self:
        """The offspring of the particles, `count` of each, at its latent.

        Each image's offspring are numbered from `first` on in the parents' order, so that a child's number depends on its own
        image alone.
        """
        rows = torch.arange(len(self))
        place = (self.image[:, None] == self.image[None]).tril().sum(1) - 1  # (P,) among the particles of its image
        born = rows.repeat_interleave(count)
        offspring = self.select(born)
        offspring.index = first + place[born] * count + torch.arange(count).repeat(len(self))
        offspring.parent, offspring.level = self.index[born], self.level[born] + 1
        return offspring.image_by_image()

    def image_by_image(self) -> Self:
        """The same particles, those of an image one after the other; images in order of first appearance."""
        order = {image: i for i, image in enumerate(dict.fromkeys(self.image.tolist()))}
        return self.select(torch.tensor([order[i] for i in self.image.tolist()], dtype=torch.long).argsort(stable=True))

    def same_image(self, device: torch.device) -> torch.Tensor:
        """Which particles belong to one image, (P, P) bool on `device`."""
        return (self.image[:, None] == self.image[None]).to(device)

    def by_image(self) -> dict[int, torch.Tensor]:
        """{image id: positions of its particles, as of_image}, in order of first appearance."""
        return {image: self.of_image(image) for image in dict.fromkeys(self.image.tolist())}

    def of_image(self, image_id: int) -> torch.Tensor:
        """Positions of one image's particles, (n,) int64 on the CPU."""
        return torch.nonzero(self.image == image_id).flatten()

    def mean_pairwise_distance(self) -> torch.Tensor:
        """Mean Euclidean distance between the latents of each image's particles.

        Returns (N,) on the device, images in order of first appearance; NaN for an image with one finite particle.
        """
        flat = self.z.flatten(1)
        finite = torch.isfinite(flat).all(dim=1)
        flat = torch.where(finite[:, None], flat, torch.zeros_like(flat))
        distance = (flat[:, None] - flat[None]).square().sum(-1).sqrt()  # (P, P)
        images = torch.as_tensor(list(dict.fromkeys(self.image.tolist())))
        member = (images[:, None] == self.image[None]).to(flat.device, flat.dtype) * finite.to(flat.dtype)  # (N, P)
        pairs = member.sum(1).square() - member.sum(1)
        return torch.einsum("np,pq,nq->n", member, distance, member) / pairs
