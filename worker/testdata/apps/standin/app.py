"""Prints what has become of spaces.zero.torch, of the release in the folder that RELEASE names."""
import json
import os
import sys

sys.path.insert(0, os.environ["RELEASE"])

import torch

before = torch.version.cuda, torch.Generator
import spaces.zero.torch as zero

own = [name for name in ("pack", "size", "init", "move", "is_in_bad_fork", "patch", "unpatch") if getattr(zero, name) == "spaces' own"]
told = {"before": before[0], "seen": zero.SEEN, "own": own, "generator replaced": torch.Generator is not before[1]}
if "pack" not in own:
    told |= {"weights": zero.pack(), "to transfer": zero.size(), "bad fork": zero.is_in_bad_fork()}
    told["generators"] = isinstance(torch.Generator(), before[1])
print("standin " + json.dumps(told))
