"""Levin's set for tensorflow_datasets: `jbid.data.tfds.tfds_source("levin")`."""
