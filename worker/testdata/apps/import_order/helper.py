import torch

DEVICE = "cuda" if torch.accelerator.is_available() else "cpu"
