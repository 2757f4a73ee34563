"""When the three parts act: flags per annealing step, the two events, and the phases between them.

The pruning acts after the chain of the step before the first one with t <= pruning_step, so that this step and all
later ones run on the smaller batch. The optimisation acts after the chain of steps with t <= optimization_step. Particles of a
sequential population stop early after the chain of the first step with t <= stop_step.
"""

from utils.sampling.schedule import StepClock


class Events:
    """The plan of one run.

    repulsion_on: whether there is any repulsion; the switches are timesteps of 1000,
    -1 = off; every: the optimisation acts on every `every`-th step of its phase and always on the last.
    """

    def __init__(
        self,
        clock: StepClock,
        repulsion_on: bool = False,
        repulsion_end: int = 200,
        pruning_step: int = -1,
        optimization_step: int = -1,
        every: int = 1,
        stop_step: int | None = None,
    ) -> None:
        self.clock, self.num_steps = clock, clock.num_steps
        self.pruning_index = clock.first_step(pruning_step) if pruning_step >= 0 else None
        self.optimization_index = clock.first_step(optimization_step) if optimization_step >= 0 else None
        self.stop_index = None if stop_step is None else clock.first_step(stop_step)
        ends = [clock.first_step(repulsion_end), self.pruning_index, self.optimization_index, self.num_steps]
        self.repulsion_steps = min(e for e in ends if e is not None) if repulsion_on else 0
        self.every = every

    def do_repulsion(self, step: int) -> bool:
        return step < self.repulsion_steps

    def before_events(self, step: int) -> bool:
        """Whether a repulsion that has faded out may stay in the computation: neither event has changed it yet."""
        indices = [i for i in (self.pruning_index, self.optimization_index) if i is not None]
        return self.repulsion_steps > 0 and step < min(indices, default=self.num_steps)

    def prune_after(self, step: int) -> bool:
        return self.pruning_index is not None and step == self.pruning_index - 1

    def do_optimization(self, step: int) -> bool:
        if self.optimization_index is None or step < self.optimization_index:
            return False
        return (step - self.optimization_index) % self.every == 0 or step == self.num_steps - 1

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of all phases of the run, in order."""
        prunes, optimises = self.pruning_index is not None, self.optimization_index is not None
        return {
            (False, False): ("sampling",),
            (True, False): ("pre_pruning", "post_pruning"),
            (False, True): ("pre_optimization", "optimization"),
            (True, True): ("pre_pruning", "post_pruning_pre_optimization", "optimization"),
        }[prunes, optimises]

    def phase(self, step: int) -> str:
        """The phase that a step belongs to."""
        if self.optimization_index is not None and step >= self.optimization_index:
            return self.phases[-1]
        if self.pruning_index is not None and step >= self.pruning_index:
            return self.phases[1]
        return self.phases[0]
