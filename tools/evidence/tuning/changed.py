"""What the programs beside this one share: posterior_sample.py with a change that no config describes."""

from collections.abc import Callable, Sequence

from utils.config.compose import compose
from utils.errors import InputError


def sample(word: str, overrides: Sequence[str], change: Callable[[], None]) -> None:
    """Samples after `change()`, which replaces a part of the program. Raises InputError unless name= says `word`."""
    import posterior_sample
    from utils.running import console

    cfg = compose(overrides)
    if word not in cfg.name:
        raise InputError(f"name={cfg.name}: what is changed is in no config, so the name has to say {word}")
    console.setup_logging()
    change()
    posterior_sample.run(cfg)
