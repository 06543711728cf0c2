"""The three methods: ID³, CemiFace and ID-Booth, from training to a dataset on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "id3": ["ID3Pipeline", "ID3Recipe", "ID3Weights", "train_id3"],
        "cemiface": ["CemiFacePipeline", "CemiFaceRecipe", "CemiFaceWeights", "train_cemiface"],
        "inquiries": ["choose_inquiries", "ranked_groups"],
        "generation": ["bootstrap_attributes", "generate", "plan"],
        "idbooth": ["BoothLoss", "BoothRecipe", "make_priors", "train_person"],
        "people": ["booth_prompt", "generate_people", "write_people"],
    },
)
