"""Figures, tables and one HTML page that holds them all."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "histograms": ["attribute_histogram", "separation_plot", "similarity_histogram"],
        "responses": ["control_plot", "curves"],
        "logs": ["training_curves"],
        "progress": ["live"],
        "pieces": ["picture", "picture_rows", "table"],
        "accuracies": ["accuracy_bars", "verification_table"],
        "answers": ["dataset_answer", "facts", "methods_answer"],
        "page": ["write_report"],
    },
)
