"""Lai's uniform set for tensorflow_datasets: `jbid.data.tfds.tfds_source("lai")`."""
