"""Checks the composed config before anything heavy is imported or anything on disk is touched."""

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from utils.config.settings import Settings
from utils.errors import InputError, short


def check(cfg):
    """Typed settings of a composed config. Raises InputError naming the first wrong key and its value."""
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise InputError(f"{missing[0]}: give it a value, for example {missing[0]}=...")
        settings = Settings.model_validate(OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:  # ${...} that leads nowhere
        raise InputError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}; give it a value") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first["loc"], cfg)
        value = "" if first["type"] == "missing" else f"={short(first['input'])}"
        raise InputError(f"{key}{value}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
    from utils.config.relations import check_relations

    check_relations(settings)
    return settings


def _key(location, cfg):
    """The dotted key of a pydantic error, without the name of the alternative that pydantic appends at a union."""
    key, node = [], cfg
    for part in location:
        key.append(str(part))
        node = node.get(part) if OmegaConf.is_dict(node) else None
        if not OmegaConf.is_config(node):
            break
    return ".".join(key)
