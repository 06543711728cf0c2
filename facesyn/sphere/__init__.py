"""Identities on the unit sphere: anchors spread evenly (the Tammes problem), and embeddings around each of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "geometry": ["cosines", "degrees", "levenshtein_bound", "max_cosine", "random_anchors"],
        "anchors": ["describe", "principal_space", "tammes_anchors"],
        "galleries": ["gallery_anchors", "select_distinct"],
        "spreading": ["cone_cosine", "nearest_other", "spread", "spread_rows"],
    },
)
