from . import torch

if torch.is_in_bad_fork():  # from here to the end as in spaces 0.51.3
    raise RuntimeError(
        "CUDA has been initialized before importing the `spaces` package. "
        "Try importing `spaces` before any other CUDA-related package."
    )
