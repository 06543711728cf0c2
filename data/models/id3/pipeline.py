"""ID3Pipeline of facesyn: DiffusionPipeline.from_pretrained(this_folder, trust_remote_code=True)."""

try:
    from facesyn.methods.id3_sampling import ID3Pipeline  # noqa: F401
except ImportError as e:
    raise ImportError("ID3Pipeline is facesyn's: clone its repository and pip install -e it") from e
