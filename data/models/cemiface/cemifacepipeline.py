# For diffusers: DiffusionPipeline.from_pretrained(FOLDER); from the Hub also trust_remote_code=True.
try:
    from facesyn.methods.cemiface_sampling import CemiFacePipeline  # noqa: F401
except ImportError as e:
    raise ImportError("this generator needs facesyn: pip install its repository, then try again") from e
