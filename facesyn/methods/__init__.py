"""The three methods: ID³, CemiFace and ID-Booth, from training to a dataset on disk."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "id3": ["ID3Weights"],
        "id3_sampling": ["ID3Pipeline"],
        "id3_training": ["ID3Recipe", "train_id3"],
        "cemiface": ["CemiFaceWeights"],
        "cemiface_sampling": ["CemiFacePipeline"],
        "cemiface_training": ["CemiFaceRecipe", "train_cemiface"],
        "inquiries": ["Screen", "choose_inquiries", "ranked_groups"],
        "generation": ["generate"],
        "tars": ["generate_tars"],
        "plans": ["bootstrap_attributes", "plan"],
        "idbooth": ["BoothLoss"],
        "idbooth_pictures": ["make_priors"],
        "idbooth_training": ["BoothRecipe", "train_person"],
        "people": ["booth_prompt", "generate_people", "write_people"],
    },
)
