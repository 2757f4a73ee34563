"""Several processes under torchrun: which images are whose, and who opens and closes the run folder.

Ranks exchange no tensors: they share the run folder, and torchrun's own key-value store tells when a rank is ready.
Source: PyTorch documentation, "torchrun (Elastic Launch)", environment variables.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from utils.config.settings import Settings
from utils.errors import InputError

if TYPE_CHECKING:
    from torch.distributed import Store


POLL_S = 0.2
TORCHRUN = "TORCHELASTIC_RUN_ID"  # set by it alone


@dataclass(frozen=True)
class Rank:
    """One process of `count`; index 0 .. count-1, `local` its number on its own machine. (0, 1, 0) without torchrun."""

    index: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def of_this_process(cls) -> Rank:
        """Reads what torchrun sets; any other launcher gives independent processes (shard=k/n). Raises InputError."""
        if TORCHRUN not in os.environ:
            return cls()
        values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        if not all(value.isdecimal() for value in values):
            raise InputError(
                f"{TORCHRUN} is set as by torchrun, but RANK, WORLD_SIZE and LOCAL_RANK are {', '.join(map(repr, values))}; "
                f"start torchrun once more, or unset {TORCHRUN}"
            )
        return cls(*map(int, values))

    @property
    def first(self) -> bool:
        return self.index == 0

    def settings(self, settings: Settings) -> Settings:
        """The settings with this rank's part of the shard: rank r of R in shard k/n is shard (k + n r)/(n R)."""
        if self.count == 1:
            _refuse_equal_tasks(settings)
            return settings
        if settings.use_tpu:
            raise InputError("use_tpu=true: torchrun serves CUDA and the CPU; start one process per TPU with shard=k/n")
        k, n = settings.shard_of
        return settings.model_copy(update={"shard": f"{k + n * self.index}/{n * self.count}"})

    @cached_property
    def _store(self) -> Store:
        from torch.distributed import rendezvous

        return next(rendezvous("env://"))[0]

    def announce(self, event: str) -> None:
        """Tell the other ranks that this one has reached `event`."""
        if self.count > 1:
            self._store.set(f"{event}/{self.index}", "reached")

    def wait_for_first(self, event: str) -> None:
        """Until rank 0 has announced `event`."""
        self._wait([f"{event}/0"])

    def wait_for_all(self, event: str) -> None:
        """Announce `event`; rank 0 then waits until every rank has. However long: torchrun ends all if one dies."""
        self.announce(event)
        if self.count > 1 and self.first:
            self._wait([f"{event}/{i}" for i in range(self.count)])

    def _wait(self, keys: list[str]) -> None:
        while not self._store.check(keys):  # polling, unlike a barrier, can be interrupted
            time.sleep(POLL_S)


def _refuse_equal_tasks(settings: Settings) -> None:
    """Raises InputError where srun runs this program several times and no shard tells the tasks apart."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")  # of this srun, where SLURM_NTASKS is of the whole job
    if TORCHRUN not in os.environ and tasks.isdecimal() and int(tasks) > 1 and settings.shard_of[1] == 1:
        raise InputError(
            f"shard={settings.shard}: srun runs {tasks} tasks, and each would sample all images; share them with "
            f"'shard=${{oc.env:SLURM_PROCID}}/{tasks}', or let srun start one torchrun a node"
        )
