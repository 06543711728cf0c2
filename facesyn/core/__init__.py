"""What every other floor uses: files, pictures, random streams, records of runs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "files": ["repo_root", "shipped", "read_json", "write_json", "atomic"],
        "records": ["write_record"],
        "images": ["generator", "image_grid", "lead_picture", "read_image", "to_float", "to_uint8"],
        "checks": ["refused"],
        "watching": ["Watch", "strip"],
        "training": ["Keep", "Optim"],
    },
)
