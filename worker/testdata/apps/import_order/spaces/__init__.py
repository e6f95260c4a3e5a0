from . import zero
