import torch

SEEN = [torch.version.cuda, hasattr(torch._C, "_cuda_init")]
pack = size = init = move = is_in_bad_fork = patch = unpatch = "spaces' own"
