"""The weights of the libraries' modules in ours, and the other way round."""

from typing import Any

from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import nn

from model.network.weight_tree import Float32Tree, WeightTree


def tree_of(module: nn.Module) -> Float32Tree:
    """The weights of a library's text module, shared with it."""
    weights = module.state_dict()
    tree = Float32Tree({name: tuple(weight.shape) for name, weight in weights.items()})
    tree.load_state_dict(weights, assign=True)
    return tree.requires_grad_(requires_grad=False)


def library_of(transformer: WeightTree) -> Any:
    """The library's transformer with the weights that ours has now."""
    module: Any = CosmosTransformer3DModel(**vars(transformer.config))
    module.load_state_dict(transformer.state_dict())
    return module.eval()
