"""JupyterLab in this repository (`make lab`): notebooks are saved as `nbdev_clean` leaves them."""

from nbdev.clean import clean_nb
from nbdev.config import get_config


def clean(model, **kwargs):
    if model["type"] == "notebook" and model["content"]["nbformat"] == 4:
        config = get_config()
        keys = config.allowed_cell_metadata_keys.split()
        clean_nb(model["content"], config.clear_all, allowed_cell_metadata_keys=keys, clean_ids=config.clean_ids)


c.ContentsManager.pre_save_hook = clean  # noqa: F821
