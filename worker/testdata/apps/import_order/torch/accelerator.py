import torch


def is_available():
    return torch.cuda_build and torch.cuda.is_available()
