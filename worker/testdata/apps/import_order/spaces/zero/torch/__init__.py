import torch

from . import patching

pack = size = init = move = None


def is_in_bad_fork():
    return torch._C._cuda_isInBadFork()
