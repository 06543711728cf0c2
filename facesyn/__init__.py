"""Synthetic face datasets for face recognition: ID³, CemiFace and ID-Booth.

Ten new people, five pictures of each, by a generator that ships with the repository:

    from facesyn import shipped
    from facesyn.methods import ID3Pipeline
    from facesyn.sphere import spread, tammes_anchors

    y = spread(tammes_anchors(10, 64), 5, lb=0.7, ub=0.9)
    faces = ID3Pipeline.from_pretrained(shipped("id3"))(y.flatten(0, 1)).images

The floors: `core`, `sphere`, `rendered`, `data`, `nets`, `measure`, `diffusion`, `methods`, `report`.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["core", "sphere", "rendered", "data", "nets", "measure", "diffusion", "methods", "report"],
    submod_attrs={"core.files": ["shipped"]},
)
