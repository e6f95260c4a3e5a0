"""The parts of torch through which a program initializes CUDA. A CUDA build remembers that it did, like the real one."""
import os
import types

cuda_build = os.environ["BUILD"] == "cuda"
version = types.SimpleNamespace(cuda="12.8" if cuda_build else None)


class Generator:
    pass


_C = types.ModuleType("torch._C")
_C.Generator = Generator
touched = False


def _touch():
    global touched
    touched = True
    return 0


if cuda_build:
    _C._cuda_init = _touch
    _C._cuda_getDeviceCount = _touch
    _C._cuda_isInBadFork = lambda: touched

from . import accelerator, cuda


class Tensor:
    def to(self, device):
        cuda._lazy_init()


def zeros(size):
    return Tensor()
