"""Lai's uniform set for tensorflow_datasets: `jbid.data.builders.tfds_source("lai")`."""
