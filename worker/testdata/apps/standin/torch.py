"""As much of a CPU build of torch as is looked at before the first worker."""
import types


class Generator:
    pass


version = types.SimpleNamespace(cuda=None)
_C = types.SimpleNamespace(Generator=Generator)
