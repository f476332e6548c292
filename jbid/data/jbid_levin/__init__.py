"""Levin's set for tensorflow_datasets: `jbid.data.builders.tfds_source("levin")`."""
