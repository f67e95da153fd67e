"""Image tokens from the reference's latent, for models without CLIP (`reference="ip-adapter"` trained from scratch)."""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from xdyna.models.attention import position_code
from xdyna.models.resampler import Resampler


class ReferenceEncoder(ModelMixin, ConfigMixin):
    """Latent -> patches with a code of their place -> Resampler -> image tokens.

    What CLIP's vision tower and its projector are for the full-size model. A few tokens say what is in the picture, not
    where each pixel is: that is what sets this way of showing the reference apart.

    Args:
        in_channels: latent channels.
        patch_size: side of a patch, in latent pixels; the latent is padded to whole patches by zeros.
        dim: width of the patches and inside the Resampler.
        depth: layers of the Resampler.
        heads: its heads.
        num_queries: image tokens that come out, the denoiser's `image_tokens`.
        output_dim: their width, the denoiser's `cross_attention_dim`.
        ff_mult: width of its feed-forwards over `dim`.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        patch_size: int = 2,
        dim: int = 192,
        depth: int = 2,
        heads: int = 4,
        num_queries: int = 16,
        output_dim: int = 192,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.resampler = Resampler(
            dim=dim,
            depth=depth,
            dim_head=dim // heads,
            heads=heads,
            num_queries=num_queries,
            embedding_dim=dim,
            output_dim=output_dim,
            ff_mult=ff_mult,
        )

    def forward(self, reference: Tensor) -> Tensor:
        """Image tokens of a picture.

        Args:
            reference: (b c h w) clean latent of any size.

        Returns:
            (b num_queries output_dim)
        """
        side, (height, width) = self.config.patch_size, reference.shape[2:]
        patches = self.patches(F.pad(reference, (0, -width % side, 0, -height % side)))
        code = position_code(patches.shape[2], patches.shape[3], patches.shape[1], like=patches)
        return self.resampler(patches.flatten(2).transpose(1, 2) + code)
