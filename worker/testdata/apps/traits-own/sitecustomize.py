"""The environment's own sitecustomize, which runs although the runner's is first on the path."""
import sys

sys.own_sitecustomize = __file__
