"""Batch norms over several workers, which are threads here: each meets the others where sums are exchanged."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from edgeprune.recovery.shared_norms import SharedNorms


class _Meeting:
    """Adds up what `workers` threads bring."""

    def __init__(self, workers: int) -> None:
        self._barrier = threading.Barrier(workers, timeout=60)
        self._brought: dict[int, Tensor] = {}

    def summed(self, mine: Tensor) -> Tensor:
        self._brought[threading.get_ident()] = mine.clone()
        self._barrier.wait()
        total = torch.stack([self._brought[key] for key in sorted(self._brought)]).sum(0)
        self._barrier.wait()
        return total


def _net(affine: bool = True, momentum: float | None = 0.1) -> nn.Module:  # noqa: FBT001, FBT002
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, affine=affine, momentum=momentum)
    if affine:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 1, bias=False)).double()


def _step(net: nn.Module, inputs: Tensor) -> Tensor:
    """Gradient with respect to the inputs; those of the weights stay on the net."""
    watched = inputs.clone().requires_grad_()
    net(watched).square().sum().backward()
    assert watched.grad is not None
    return watched.grad


@pytest.mark.parametrize(("affine", "momentum"), [(True, 0.1), (False, None)])
@pytest.mark.parametrize("first", [4, 3])
def test_two_workers_normalise_as_one_process_does(first: int, affine: bool, momentum: float | None) -> None:  # noqa: FBT001
    alone = _net(affine, momentum)
    inputs = 5 + torch.randn(8, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    workers = [copy.deepcopy(alone) for _ in range(2)]
    for _ in range(2):
        expected, meeting = _step(alone, inputs), _Meeting(2)
        shared = [SharedNorms(worker, meeting.summed) for worker in workers]
        with ThreadPoolExecutor(2) as threads:
            found = list(threads.map(_step, workers, (inputs[:first], inputs[first:])))
        for norms in shared:
            norms.close()
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-9, atol=1e-9)
    for name, parameter in alone.named_parameters():
        total = sum(dict(worker.named_parameters())[name].grad for worker in workers)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-9, atol=1e-9, msg=name)
    for worker in workers:
        for name, buffer in alone.named_buffers():
            torch.testing.assert_close(dict(worker.named_buffers())[name], buffer, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_worker_is_the_norm_itself_in_any_precision(dtype: torch.dtype) -> None:
    inputs = (3 + torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))).to(dtype)
    plain, shared = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    norms = SharedNorms(shared, lambda mine: mine)
    outputs = []
    for norm in (plain, shared):
        watched = inputs.clone().requires_grad_()
        output = norm(watched)
        (output * torch.arange(5)).square().sum().backward()
        outputs.append((output, watched.grad, norm.weight.grad, norm.running_mean, norm.running_var))
    assert outputs[1][0].dtype == dtype
    for theirs, ours in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=2e-2)
    norms.close()
    assert "forward" not in vars(shared)


def test_nothing_is_exchanged_in_eval_mode_nor_for_whole_batches() -> None:
    def never(_: Tensor) -> Tensor:
        raise AssertionError

    plain = nn.Sequential(nn.BatchNorm1d(3), nn.InstanceNorm1d(3))
    shared = copy.deepcopy(plain)
    norms, inputs = SharedNorms(shared, never), torch.randn(4, 3, 5)
    norms.is_shared = False
    assert torch.equal(shared(inputs), plain(inputs))
    norms.is_shared = True
    assert torch.equal(shared.eval()(inputs), plain.eval()(inputs))
    torch.testing.assert_close(shared.state_dict(), plain.state_dict())
    with pytest.raises(AssertionError):
        shared.train()(inputs)
