"""The .yaml beside an SD 2.x checkpoint, by which other programs recognise it and learn how it predicts.

They look for it by the checkpoint's name and build the model that it describes in terms of Stability AI's
published code (`ldm.*`). Source: https://github.com/Stability-AI/stablediffusion, configs.
"""

from __future__ import annotations

from pathlib import Path

from library.files import whole_file
from library.models.base import PredictionType

_CONFIG = """\
model:
  base_learning_rate: 1.0e-4
  target: ldm.models.diffusion.ddpm.{model}
  params:
{parameterization}    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: 64
    channels: 4
    cond_stage_trainable: false
    conditioning_key: {condition}
    monitor: val/loss_simple_ema
    scale_factor: 0.18215
    use_ema: false
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        use_checkpoint: true
        use_fp16: true
        image_size: 32
        in_channels: {channels}
        out_channels: 4
        model_channels: 320
        attention_resolutions: [4, 2, 1]
        num_res_blocks: 2
        channel_mult: [1, 2, 4, 4]
        num_head_channels: 64
        use_spatial_transformer: true
        use_linear_in_transformer: true
        transformer_depth: 1
        context_dim: 1024
        legacy: false
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 256
          in_channels: 3
          out_ch: 3
          ch: 128
          ch_mult: [1, 2, 4, 4]
          num_res_blocks: 2
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder
      params:
        freeze: true
        layer: "penultimate"
"""
_INPAINTING = ("LatentInpaintDiffusion", "hybrid")  # which class, and how it is told about the picture


def save_inference_config(path: Path, prediction_type: PredictionType, *, channels: int = 4) -> None:
    """Write the configuration of an SD 2.x model that predicts the noise or v.

    channels: what its U-Net takes; more than 4 are those of an inpainting model.

    Nothing is written for a model that predicts neither: those programs do not know it.
    """
    if prediction_type == "flow":
        return
    line = '    parameterization: "v"\n' if prediction_type == "v" else ""
    model, condition = ("LatentDiffusion", "crossattn") if channels == 4 else _INPAINTING
    if channels != 4:
        line += "    finetune_keys: null\n"
    text = _CONFIG.format(parameterization=line, model=model, condition=condition, channels=channels)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
