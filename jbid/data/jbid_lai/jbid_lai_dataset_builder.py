"""The 100 uniformly blurred images of Lai et al. 2016."""

from __future__ import annotations

import tensorflow_datasets as tfds

from jbid.data import lai
from jbid.data.tfds import SOURCES, features, pairs


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builder that reads the folder of `jbid.data.lai.root`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "25 scenes, 4 kernels."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = SOURCES["lai"]

    def _info(self):
        homepage = "https://github.com/phoenix104104/cvpr16_deblur_study"
        return self.dataset_info_from_configs(features=features((None, None, 3)), homepage=homepage)

    def _split_generators(self, dl_manager):
        return {"test": self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, folder):
        return pairs(lai, folder)
