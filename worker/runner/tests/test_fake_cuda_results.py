"""Tests for spacehost_runner/fake_cuda_results.py, with a fake torch and the real pickler of multiprocessing."""
from __future__ import annotations

import copy
import os
import pickle
import sys
import types
import unittest
from multiprocessing.reduction import ForkingPickler

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from spacehost_runner import fake_cuda_results
from spacehost_runner.fake_cuda_tensors import CPU, CUDA, MARK


class Tensor:
    shape = (2, 3)


class Parameter(Tensor):
    pass


class Results(unittest.TestCase):
    def setUp(self) -> None:
        before = dict(ForkingPickler._extra_reducers)
        self.addCleanup(lambda: (ForkingPickler._extra_reducers.clear(), ForkingPickler._extra_reducers.update(before)))
        for kind in (Tensor, Parameter):
            ForkingPickler.register(kind, lambda tensor: (str, ("sent",)))
        fake_cuda_results.refuse_cuda_tensors(types.SimpleNamespace(Tensor=Tensor, nn=types.SimpleNamespace(Parameter=Parameter)))

    def tensor(self, kind: type, mark: int) -> object:
        one = kind()
        setattr(one, MARK, mark)
        return one

    def test_a_tensor_on_cuda_is_refused_anywhere_in_a_result(self) -> None:
        for kind in (Tensor, Parameter):
            for result in (lambda one: one, lambda one: [1, {"image": one}], lambda one: types.SimpleNamespace(value=(one,))):
                with self.assertRaisesRegex(pickle.PicklingError, r"simulated GPU .* tensor on cuda, of shape \(2, 3\).*Return tensor.cpu\(\)"):
                    ForkingPickler.dumps(result(self.tensor(kind, CUDA)))

    def test_other_tensors_are_sent(self) -> None:
        for one in (self.tensor(Tensor, CPU), Tensor(), self.tensor(Parameter, CPU)):
            self.assertEqual(pickle.loads(ForkingPickler.dumps({"a": one})), {"a": "sent"})

    def test_other_picklers_are_not_affected(self) -> None:
        copy.deepcopy(self.tensor(Tensor, CUDA))
        pickle.dumps(self.tensor(Tensor, CUDA))


if __name__ == "__main__":
    unittest.main()
