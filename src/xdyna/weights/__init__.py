"""Models on disk: their parts, where they are, loading and saving them, what is known of them."""

from xdyna.weights.components import COMPONENTS, Component, ModelIndex, read_index, read_preset
from xdyna.weights.folder import file_hash, folder_hash, models_dir, resolve, save_component, save_model
from xdyna.weights.known import ModelInfo, PartInfo, describe_models
from xdyna.weights.loading import load_component, load_components, load_weights
from xdyna.weights.placing import lent_parts, load_placed
from xdyna.weights.storage import STORAGES

__all__ = [
    "COMPONENTS",
    "STORAGES",
    "Component",
    "ModelIndex",
    "ModelInfo",
    "PartInfo",
    "describe_models",
    "file_hash",
    "folder_hash",
    "lent_parts",
    "load_component",
    "load_components",
    "load_placed",
    "load_weights",
    "models_dir",
    "read_index",
    "read_preset",
    "resolve",
    "save_component",
    "save_model",
]
