"A generator small enough for a test"

import time

import torch
from diffusers import DDIMScheduler

from facesyn.diffusion.unet import build_unet
from facesyn.methods.id3 import ID3Conditions
from facesyn.methods.id3_sampling import ID3Pipeline


def pipeline():
    "An ID³ generator of 8 pixels with random weights, for identities of 4 numbers"
    torch.manual_seed(0)
    unet = build_unet(8, channels=(32,), condition_dim=16, head_dim=16)
    pipe = ID3Pipeline(unet, ID3Conditions(4, (8,), 16), DDIMScheduler(prediction_type="v_prediction"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Slow(ID3Pipeline):
    "The same pipeline, which takes its time"

    pause = 0.0

    def __call__(self, *args, **kw):
        time.sleep(self.pause)
        return super().__call__(*args, **kw)


Slow.__name__ = "ID3Pipeline"
