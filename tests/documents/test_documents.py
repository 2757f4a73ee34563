"""PROJECT.md, README.md and the configuration name the same things."""

import re

from omegaconf import OmegaConf

from utils.paths import PROJECT


def switches_of_the_table():
    """Keys in the first column of PROJECT.md's table of switches; a.{b,c} counts as a.b and a.c."""
    section = (PROJECT / "PROJECT.md").read_text().split("\n## Switches\n")[1].split("\n## ")[0]
    keys = set()
    for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            stem, _, details = name.partition("{")
            keys |= {stem + detail for detail in details.rstrip("}").split(",")} if details else {name}
    return keys


def switches_of_the_config():
    """Keys of configs/default.yaml, those of its sections with a dot."""
    keys = set()
    for key, value in OmegaConf.load(PROJECT / "configs/default.yaml").items():
        if key not in ("defaults", "hydra"):
            keys |= {f"{key}.{detail}" for detail in value} if OmegaConf.is_dict(value) else {key}
    return keys


def test_the_table_of_switches_is_that_of_the_config():
    in_groups = {"data.start_id", "data.end_id"}  # of configs/data
    assert switches_of_the_table() - in_groups == switches_of_the_config()


def test_every_file_that_the_documents_name_exists():
    folders = "commands_gpu|commands_tpu|configs|tools|tests|utils|operators|docs|evidence"
    wanted = set()
    for name in ("README.md", "PROJECT.md"):
        text = (PROJECT / name).read_text()
        wanted |= set(re.findall(rf"(?<![\w/])((?:{folders})/[\w/.-]+\.\w+)", text))
    assert len(wanted) > 30
    assert not sorted(path for path in wanted if not (PROJECT / path).exists())
