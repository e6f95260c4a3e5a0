"""`python -m spacehost` is the command `spacehost`, for a scripts folder that is not on PATH."""

import os
import sys

from spacehost._binary import find_binary

if __name__ == "__main__":
    binary = find_binary()
    os.execv(binary, [binary, *sys.argv[1:]])
