"""What all generators share: the noise schedule, the U-Net, latents, training, guidance, the pipeline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[],
    submod_attrs={
        "schedule": ["add_noise", "denoising_error", "estimate_x0"],
        "unet": ["build_unet"],
        "latents": ["EvenPatches", "Patches", "open_vae"],
        "training": ["train"],
        "sampling": ["Guidance", "guidance_of"],
        "text_to_image": ["caption", "text_pipeline"],
    },
)
