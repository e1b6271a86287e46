"""The networks that are trained together: transformer, conditioner and text encoder."""

from pathlib import Path

import torch
from diffusers.models.condition_embedders.condition_embedder_anima import AnimaTextConditioner
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3Model

from training.pictures.tokenizers import T5_PAD, load_tiny_tokenizers
from training.train import loop

HEADS, HEAD_DIM, BLOCKS, MLP_RATIO, ADALN_DIM = 4, 48, 6, 3.0, 32
TEXT_DIM, TEXT_HEADS, TEXT_LAYERS, TEXT_MLP = 128, 4, 2, 256
CONTEXT_ROWS = 80  # zero rows after the text are attended to, so their number matters
ROPE_SCALE = (1.0, 1.0, 1.0)
ROPE_THETA = 1e6  # Qwen3's


class Anima(nn.Module):
    """Transformer, conditioner and text encoder, as diffusers and transformers define them."""

    def __init__(self, qwen_vocabulary: int, t5_vocabulary: int):
        super().__init__()
        self.transformer = CosmosTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=HEADS,
            attention_head_dim=HEAD_DIM,
            num_layers=BLOCKS,
            mlp_ratio=MLP_RATIO,
            text_embed_dim=TEXT_DIM,
            adaln_lora_dim=ADALN_DIM,
            rope_scale=ROPE_SCALE,
            concat_padding_mask=False,
            extra_pos_embed_type=None,
        )
        self.conditioner = AnimaTextConditioner(
            source_dim=TEXT_DIM,
            target_dim=TEXT_DIM,
            model_dim=TEXT_DIM,
            num_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_HEADS,
            mlp_ratio=2.0,
            target_vocab_size=t5_vocabulary,
            min_sequence_length=CONTEXT_ROWS,
        )
        self.text_encoder = Qwen3Model(qwen_config(qwen_vocabulary))
        self._start()

    def _start(self) -> None:
        """Initialise every block as the identity, and the prediction as zero."""
        for name, module in self.transformer.named_modules():
            is_gate = name.endswith(("norm1.linear_2", "norm2.linear_2", "norm3.linear_2"))
            if is_gate or name in (
                "proj_out",
                "norm_out.linear_2",
                "time_embed.t_embedder.linear_2",
            ):
                nn.init.zeros_(module.weight)
        nn.init.normal_(self.conditioner.embed.weight, std=0.5)

    def context(self, qwen: Tensor, t5: Tensor, lengths: Tensor) -> Tensor:
        """Encode token ids (B, L), padded at the right, to the context (B, 80, 128).

        `lengths` are the numbers of Qwen ids. The empty prompt has length 0: its states are zero,
        and one key is attended to. Causal states do not see padding, so Qwen needs no mask.
        """
        states = self.text_encoder(input_ids=qwen, use_cache=False).last_hidden_state
        states = states * (lengths > 0)[:, None, None]
        positions = torch.arange(qwen.shape[1])
        source_mask = positions[None, :] < lengths.clamp(min=1)[:, None]
        context: Tensor = self.conditioner(
            states, t5, target_attention_mask=t5 != T5_PAD, source_attention_mask=source_mask
        )
        return context

    def forward(self, latents: Tensor, sigma: Tensor, context: Tensor) -> Tensor:
        """Velocity (B, 16, 1, h, w) at noise level `sigma` (B,) in [0, 1], float32."""
        velocity: Tensor = self.transformer(latents, sigma, context, return_dict=False)[0]
        return velocity.float()


def qwen_config(vocabulary: int) -> Qwen3Config:
    """Configuration of the small text encoder. Eager attention trains fast on a CPU."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=TEXT_DIM,
        intermediate_size=TEXT_MLP,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=TEXT_HEADS,
        num_key_value_heads=TEXT_HEADS // 2,
        head_dim=TEXT_DIM // TEXT_HEADS,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    config._attn_implementation = "eager"
    config.rope_parameters = {"rope_type": "default", "rope_theta": ROPE_THETA}
    return config


def build(out: Path) -> Anima:
    """New networks with the vocabulary sizes of a run."""
    qwen, t5 = load_tiny_tokenizers(out / "tokenizers")
    return Anima(qwen.get_vocab_size(), t5.get_vocab_size())


def load(out: Path) -> Anima:
    """The averaged networks of a run, for sampling."""
    model = build(out)
    model.load_state_dict(loop.load_average(out / "dit.safetensors"))
    return model.eval()
