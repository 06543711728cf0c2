"""The derivative of a crop is that of the crop: of pixels and landmarks alike."""

import torch

from facesyn.core.images import to_float
from facesyn.nets.alignment import align, similarity, template, warp
from facesyn.rendered.faces import render_faces


def test_gradient_against_finite_differences():
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(1, 1, 9, 9, generator=g, dtype=torch.float64) * 2 - 1).requires_grad_()
    small = template() * 8 / 112
    z = (small[None].double() * 1.07 + 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, z: warp(x, similarity(z, small), 8), (x, z), eps=1e-7, atol=1e-4)


def test_four_neighbours_share_the_weight_of_each_pixel():
    pictures, _, marks = render_faces(range(2), [0] * 2, 112, roll=(-40, 40), yaw=(-30, 30))
    soft = (to_float(pictures) * 0.5).requires_grad_()
    align(soft, marks - 0.5)[:, :, 56, 56].sum().backward()
    assert ((soft.grad != 0).any(1).flatten(1).sum(1) <= 4).all()
    assert torch.allclose(soft.grad.sum(), torch.tensor(6.0))
