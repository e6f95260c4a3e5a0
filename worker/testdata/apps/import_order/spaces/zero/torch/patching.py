cuda_aliases = {}
_device = type("device", (), {})
_tensor_make_subclass = _asarray = None


def _total_unpacked_size():
    return 4711
