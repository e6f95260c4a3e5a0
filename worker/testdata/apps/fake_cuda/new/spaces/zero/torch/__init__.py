import torch

from . import patching

SEEN = [torch.version.cuda, hasattr(torch._C, "_cuda_init")]  # the values that static.py reads at its import
pack = size = init = move = is_in_bad_fork = patch = unpatch = "spaces' own"
