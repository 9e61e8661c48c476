"""Small captioners with random weights and real processors, as transformers saves and opens them."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = (
    *("a", "the", "picture", "of", "on", "and", "with", "red", "green", "blue", "white", "black", "circle"),
    *("square", "star", "background", "cat", "dog", "word", "words", "sign", "says", "describe", "this"),
    *("image", "in", "one", "sentence", "user", "assistant", "what", "is", "there"),
)
SIDE = 32


def write_captioner(kind: str, folder: Path, *, seed: int = 0) -> Path:
    """A captioner of the kind in the folder, which is returned."""
    torch.manual_seed(seed)
    model, processor = _KINDS[kind](folder)
    for weights in model.parameters():  # the classes' own 0.02 makes all captions alike
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def bert_tokenizer(folder: Path, **special: str):
    from transformers import BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *special.values())
    (folder / "vocab.txt").write_text("\n".join((*marks, *WORDS, ".", ",", ":")))
    return BertTokenizer(str(folder / "vocab.txt"), model_max_length=64, **special)


def _blip(folder: Path):
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    tokenizer = bert_tokenizer(folder, bos_token="[DEC]")
    config = BlipConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "encoder_hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 96,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "sep_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config=_vision(),
        projection_dim=16,
    )
    size = {"height": SIDE, "width": SIDE}
    return BlipForConditionalGeneration(config), BlipProcessor(BlipImageProcessor(size=size), tokenizer)


def _git(folder: Path):
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = bert_tokenizer(folder)
    config = GitConfig(
        vision_config=_vision(),
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=96,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    size = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size)
    return GitForCausalLM(config), GitProcessor(pictures, tokenizer)


def word_tokenizer():
    """A token for every word, and one for a picture."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )


def _blip2(folder: Path):
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    tokenizer = word_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**sizes, "intermediate_size": 64, "image_size": SIDE, "patch_size": 8}
    query = {**sizes, "intermediate_size": 64, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
    text = {**sizes, "model_type": "opt", "vocab_size": len(tokenizer), "ffn_dim": 64}
    text |= {"word_embed_proj_dim": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = Blip2Config(
        vision_config=vision,
        qformer_config=query,
        text_config=text,
        num_query_tokens=4,
        image_token_index=tokenizer.image_token_id,
    )
    pictures = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    return Blip2ForConditionalGeneration(config), Blip2Processor(pictures, tokenizer, num_query_tokens=4)


def _llava(folder: Path):
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = word_tokenizer()
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **_vision()},
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        image_token_index=tokenizer.image_token_id,
        vision_feature_layer=-1,
    )
    size = {"height": SIDE, "width": SIDE}
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    return LlavaForConditionalGeneration(config), processor


def _florence2(folder: Path):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import (
        BartTokenizer,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    inner = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    inner.train_from_iterator([" ".join(WORDS)], vocab_size=400, special_tokens=marks)
    inner.save_model(str(folder))
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    tokenizer = BartTokenizer(**files, extra_special_tokens={"image_token": "<image>"})
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "decoder_start_token_id": 2,
    }
    vision = {
        "embed_dim": [8, 16, 32, 64],
        "num_heads": [1, 2, 4, 8],
        "num_groups": [1, 2, 4, 8],
        "depths": [1, 1, 1, 1],
        "window_size": 2,
        "projection_dim": 32,
        "max_position_embeddings": 10,
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id)
    size = {"height": 64, "width": 64}
    pictures = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    pictures.image_seq_length = 5
    bins = {"quantization": {"mode": "floor", "num_bins": [1000, 1000]}}
    after = {
        "pure_text": {},
        "od": bins,
        "ocr": {"pattern": r"(.+?)<loc_(\d+)>", "area_threshold": 0, **bins},
        "phrase_grounding": {"banned_grounding_tokens": []},
    }
    processor = Florence2Processor(
        image_processor=pictures,
        tokenizer=tokenizer,
        num_additional_image_tokens=0,
        post_processor_config=after,
    )
    return Florence2ForConditionalGeneration(config), processor


def _vision() -> dict[str, int]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "projection_dim": 16,
    }


_KINDS = {"blip": _blip, "blip2": _blip2, "git": _git, "llava": _llava, "florence2": _florence2}
