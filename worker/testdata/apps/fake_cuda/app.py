"""Prints the state of spaces.zero.torch after its import. RELEASE names the folder of the fake spaces package."""
import json
import os
import sys

sys.path.insert(0, os.environ["RELEASE"])

import torch

before = torch.version.cuda, torch.Generator
import spaces.zero.torch as zero

own = [name for name in ("pack", "size", "init", "move", "is_in_bad_fork", "patch", "unpatch") if getattr(zero, name) == "spaces' own"]
state = {"before": before[0], "seen": zero.SEEN, "own": own, "generator replaced": torch.Generator is not before[1]}
if "pack" not in own:
    state |= {"weights": zero.pack(), "to transfer": zero.size(), "bad fork": zero.is_in_bad_fork()}
    state["generators"] = isinstance(torch.Generator(), before[1])
print("fake_cuda " + json.dumps(state))
