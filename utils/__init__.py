"""The parts of the program."""

import getpass
import os

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read by torch as it loads: the memory probe would report a missing GPU
try:
    getpass.getuser()
except (KeyError, OSError):  # a user id without a name, as containers have: torch asks for one to name its cache
    os.environ["LOGNAME"] = str(os.getuid())
