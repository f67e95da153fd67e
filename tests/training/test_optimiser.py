from __future__ import annotations

import pytest
import torch
from torch import nn

from xdyna.training.optimiser import MuonAdamW, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    # the directions stay: the result is the matrix's own polar factor, roughly
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert nn.functional.cosine_similarity(
        orthogonalise(matrix).flatten(), (left @ right).flatten(), dim=0
    ) > 0.95  # fmt: skip


def test_adamw_agrees_with_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(12, 12), nn.Linear(12, 12)
    theirs.load_state_dict(ours.state_dict())
    first = MuonAdamW(ours.parameters(), rate=1e-2, matrix_rate=0.0, weight_decay=0.1)
    second = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(5):
        batch = torch.randn(4, 12)
        for network, optimiser in ((ours, first), (theirs, second)):
            optimiser.zero_grad()
            network(batch).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(ours.bias, theirs.bias, atol=1e-6, rtol=1e-5)


def test_matrices_go_to_muon_and_vectors_to_adamw() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Linear(16, 4))
    optimiser = MuonAdamW(network.parameters(), rate=1e-3, matrix_rate=1e-2, weight_decay=0.0)
    shapes = {g["muon"]: [tuple(p.shape) for p in g["params"]] for g in optimiser.param_groups}
    assert shapes[True] == [(16, 3, 3, 3)]
    assert (4, 16) in shapes[False], "too narrow for Muon"
    shares = {g["muon"]: g["share"] for g in optimiser.param_groups}
    assert shares == pytest.approx({False: 1.0, True: 10.0})


def test_muon_fits_a_linear_map() -> None:
    torch.manual_seed(0)
    truth, network = torch.randn(16, 16) / 4, nn.Linear(16, 16, bias=False)
    optimiser = MuonAdamW(network.parameters(), rate=1e-3, matrix_rate=5e-2, weight_decay=0.0)
    losses = []
    for step in range(60):
        optimiser.rate.fill_(1e-3 * (1 - step / 60))
        batch = torch.randn(32, 16)
        loss = (network(batch) - batch @ truth.T).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_shapes_that_share_a_padded_batch_are_stepped_as_if_alone() -> None:
    torch.manual_seed(0)
    shapes = [(24, 9), (9, 24), (16, 2, 3, 3), (32, 12)]
    together = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    gradients = [torch.randn(shape) for shape in shapes]
    optimisers = [MuonAdamW(together, rate=1e-3, matrix_rate=1e-2, weight_decay=0.0)]
    optimisers += [MuonAdamW([p], rate=1e-3, matrix_rate=1e-2, weight_decay=0.0) for p in alone]
    for parameters in (together, alone):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
    for optimiser in optimisers:
        optimiser.step()
    for ours, theirs, shape in zip(together, alone, shapes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=str(shape))


def test_a_state_survives_saving() -> None:
    torch.manual_seed(0)
    network = nn.Linear(16, 16)
    optimiser = MuonAdamW(network.parameters(), rate=1e-3, matrix_rate=1e-2, weight_decay=0.0)
    for _ in range(2):
        network(torch.randn(4, 16)).square().mean().backward()
        optimiser.step()
    other = MuonAdamW(network.parameters(), rate=1e-3, matrix_rate=1e-2, weight_decay=0.0)
    other.load_state_dict(optimiser.state_dict())
    assert [g["taken"].item() for g in other.param_groups] == [2, 2]
    for parameter in network.parameters():
        for key, value in optimiser.state[parameter].items():
            assert torch.equal(other.state[parameter][key], value)
