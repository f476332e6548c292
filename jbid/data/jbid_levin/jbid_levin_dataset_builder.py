"""The 32 images of Levin et al. 2009."""

from __future__ import annotations

import tensorflow_datasets as tfds

from jbid.data import levin
from jbid.data.tfds import SOURCES, features, pairs


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builder that reads the folder of `jbid.data.levin.root`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The 255x255 images of SelfDeblur's release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = SOURCES["levin"]

    def _info(self):
        return self.dataset_info_from_configs(
            features=features((255, 255, 1)), homepage="https://github.com/csdwren/SelfDeblur"
        )

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, folder):
        return pairs(levin, folder)
