"""CemiFacePipeline of facesyn: DiffusionPipeline.from_pretrained(this_folder, trust_remote_code=True)."""

try:
    from facesyn.methods.cemiface_sampling import CemiFacePipeline  # noqa: F401
except ImportError as e:
    raise ImportError("CemiFacePipeline is facesyn's: clone its repository and pip install -e it") from e
