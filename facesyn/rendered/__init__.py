"""The built-in faces: a head model, rendered in batches. Nobody's photograph is in them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=[], submod_attrs={"traits": ["people", "conditions"], "faces": ["render_faces"]}
)
