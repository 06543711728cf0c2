"""Figures, tables and one HTML page that holds them all."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "figures": ["attribute_histogram", "curves", "separation_plot", "similarity_histogram", "training_curves"],
        "page": ["picture_rows", "table", "verification_table", "write_report", "dataset_answer", "methods_answer"],
    },
)
