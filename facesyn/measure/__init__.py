"""What a dataset is worth: scores, verification, templates, diversity, nearness to real pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "scores": ["eer", "score_set", "tar_at_far"],
        "intervals": ["bootstrap_interval", "paired_bootstrap"],
        "verification": ["recovered", "untrained", "verify", "verify_pairs", "worth"],
    },
)
