"""The parts of the program."""

import getpass
import os

try:
    getpass.getuser()
except (KeyError, OSError):  # a user id without a name, as containers have: torch asks for one to name its cache
    os.environ["LOGNAME"] = str(os.getuid())
