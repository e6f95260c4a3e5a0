"""Uses CUDA before or after `import spaces`, as CASE says. BUILD is the build of the fake torch: cpu or cuda."""
import os
import sys

sys.path.insert(0, os.path.abspath("site-packages"))
case = os.environ["CASE"]

if case == "the app":
    import torch

    print("device", "cuda" if torch.cuda.is_available() else "cpu")
elif case == "a module of the app":
    import helper
elif case == "a library":
    import looks_for_gpus
elif case == "a tensor":
    import torch

    torch.zeros(1).to("cuda")
elif case == "torch alone":
    import torch

import spaces

if case == "after spaces":
    import torch

    print("device", "cuda" if torch.cuda.is_available() else "cpu")
print("started")
