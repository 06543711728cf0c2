"""A recogniser's training killed by the operating system ends, when started again, in the same weights."""
import subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch
from facesyn.recognition import train_recogniser

OPTIONS = dict(net=dict(size=16, layers=(1, 1), widths=(8, 16), dim=8), epochs=3, batch=16, lr=.05, s=16., device="cpu", memory=0)


def faces(pause=0.):
    "Six people of sixteen noise pictures; reading a batch takes `pause` seconds"
    pictures = np.random.default_rng(0).integers(0, 256, (96, 16, 16, 3), dtype=np.uint8)
    return SimpleNamespace(labels=np.arange(96) % 6, names=[], size=16, read=lambda k: (time.sleep(pause), pictures[k])[1])


def test_killed_training_resumes_bit_for_bit(tmp_path):
    path = tmp_path/"run.safetensors"
    child = subprocess.Popen([sys.executable, __file__, str(path)])
    for _ in range(1200):
        if path.exists(): break
        time.sleep(.1)
    child.kill()
    assert child.wait() == -9 and path.exists(), "the child ended or never saved"
    torch.set_num_threads(1)
    resumed, log = train_recogniser(faces(), checkpoint=path, save_every=0., **OPTIONS)
    whole, expected = train_recogniser(faces(), **OPTIONS)
    assert log == expected and all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    train_recogniser(faces(pause=.5), checkpoint=Path(sys.argv[1]), save_every=0., **OPTIONS)
