"""What the diffusion floor refuses, and the words in which it does."""

from pathlib import Path

import pytest

from facesyn.core.checks import refused
from facesyn.methods import CemiFacePipeline, ID3Pipeline


@pytest.mark.parametrize("pipeline", [ID3Pipeline, CemiFacePipeline])
@pytest.mark.parametrize("path", [Path("nowhere"), Path("no/where"), "./where", "a/path/that/is/not/there", "/nowhere"])
def test_a_local_path_that_is_not_there(pipeline, path):
    "No network is asked for it"
    refused(lambda: pipeline.from_pretrained(path), str(path), "no such folder", kind=FileNotFoundError)
