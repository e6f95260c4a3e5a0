"""The attributes of a CPU build of torch that are read before the first worker."""
import types


class Generator:
    pass


version = types.SimpleNamespace(cuda=None)
_C = types.SimpleNamespace(Generator=Generator)
