"""The environment's own, which runs although the runner comes first."""
import sys

sys.own_sitecustomize = __file__
