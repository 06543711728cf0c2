# For diffusers: DiffusionPipeline.from_pretrained(FOLDER); from the Hub also trust_remote_code=True.
try:
    from facesyn.methods.id3_sampling import ID3Pipeline  # noqa: F401
except ImportError as e:
    raise ImportError("this generator needs facesyn: pip install its repository, then try again") from e
