import torch


def is_available():
    return torch.cuda_build and torch._C._cuda_getDeviceCount() > 0


def _lazy_init():
    if not torch.cuda_build:
        raise AssertionError("Torch not compiled with CUDA enabled")
    torch._C._cuda_init()
    raise RuntimeError("Found no NVIDIA driver on your system.")
