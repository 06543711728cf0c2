"""Faces in: folders, RecordIO, WebDataset, arrays, pair files. Datasets out: with a manifest and a card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "faces": ["Faces", "folder_faces", "parametric_faces", "read_manifest", "select"],
        "array_files": ["array_faces"],
        "dataset": ["read_encoded", "write_encoded", "write_folder"],
        "pairs": ["Pairs", "load_bin", "open_pairs", "write_bin"],
        "image_sets": ["Encoded"],
        "opening": ["open_encoded", "open_faces", "open_sources"],
        "conversion": ["convert"],
        "inspection": ["inspect_dataset"],
    },
)
