"""Networks that look at faces: alignment, recognition networks and their training, encoders, pose and age."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "alignment": ["align"],
        "photographs": ["prepare_photos"],
        "backbones": ["NETWORKS", "load_recogniser"],
        "recogniser": ["Recipe", "train_recogniser"],
        "encoders": ["Encoder", "embed", "load_encoder"],
        "attributes": ["AttributeNet", "AttributeRecipe", "predict_attributes", "train_attributes"],
        "photo_attributes": ["onnx_attributes"],
    },
)
