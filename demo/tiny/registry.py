"""The tiny checkpoints by name: whoever adds an architecture adds its file and its line here."""

import functools

from tiny.armorm import build_armorm
from tiny.blip import build_blip
from tiny.checkpoints import Builder
from tiny.clip import build_clip
from tiny.idefics3 import build_idefics3
from tiny.image_classifier import build_image_classifier
from tiny.image_reward import build_image_reward
from tiny.instruct_llm import build_instruct_llm
from tiny.internvl import build_internvl
from tiny.llava import LLAVAS, build_llava
from tiny.llava_onevision import build_llava_onevision
from tiny.pipelines import PIPELINES, build_pipeline
from tiny.qwen_vl import QWENS, build_qwen_vl
from tiny.sentence_embedding import build_sentence_embedding
from tiny.siglip import build_siglip
from tiny.stable_diffusion_3 import build_stable_diffusion_3
from tiny.text_reward import build_text_reward

BUILDERS: dict[str, Builder] = {
    "stable-diffusion-3-medium": build_stable_diffusion_3,
    "clip": build_clip,
    "blip": build_blip,
    **{name: functools.partial(build_llava, name=name) for name in LLAVAS},
    "instruct-llm": build_instruct_llm,
    "image-reward": build_image_reward,
    "armorm": build_armorm,
    "sentence-embedding": build_sentence_embedding,
}

#: Base models that the random run has no use for.
BASE_MODELS: dict[str, Builder] = {
    **{name: functools.partial(build_qwen_vl, name=name) for name in QWENS},
    "idefics3": build_idefics3,
    "internvl": build_internvl,
    "llava-onevision": build_llava_onevision,
}

#: What the random run has no use for, which is built where it is asked for by name.
ON_DEMAND: dict[str, Builder] = {
    **BASE_MODELS,
    **{name: functools.partial(build_pipeline, name=name) for name in PIPELINES},
    "image-classifier": build_image_classifier,
    "siglip": build_siglip,
    "text-reward": build_text_reward,
}

#: The tiny checkpoint of each kind of model, by role and kind; None where a kind loads no model.
#: tests/test_every_model.py holds every kind to its role's contract with it.
TINY_OF: dict[tuple[str, str], str | None] = {
    ("content_checkers", "image-classifier"): "image-classifier",
    ("content_checkers", "presidio"): None,
    ("image_generators", "stable-diffusion-3"): "stable-diffusion-3-medium",
    ("image_generators", "diffusers"): "flux",
    ("image_generators", "folder"): None,
    ("image_scorers", "image-reward"): "image-reward",
    ("image_scorers", "clip"): "clip",
    ("image_scorers", "blip"): "blip",
    ("image_scorers", "siglip"): "siglip",
    ("image_scorers", "vqascore"): "llava-v1.6-mistral",
    ("image_scorers", "vlm-rating"): None,
    ("instruction_authors", "openai"): None,
    ("instruction_authors", "transformers"): "instruct-llm",
    ("instruction_authors", "vllm"): "instruct-llm",
    ("instruction_authors", "file"): None,
    ("instruction_authors", "template"): None,
    ("policy_models", "file"): None,
    ("policy_models", "openai"): None,
    ("policy_models", "transformers"): "llava-v1.6-mistral",
    ("policy_models", "vllm"): "llava-v1.6-mistral",
    ("response_generators", "vllm"): "llava-v1.6-mistral",
    ("response_generators", "transformers"): "llava-v1.6-mistral",
    ("response_rewards", "armorm"): "armorm",
    ("response_rewards", "sequence-classification"): "text-reward",
    ("response_rewards", "vlm-judge"): "llava-v1.6-mistral",
    ("response_rewards", "claims"): "llava-v1.6-mistral",
    ("response_rewards", "vlm-judge-endpoint"): None,
    ("response_rewards", "claims-endpoint"): None,
}

#: The class of diffusers that a tiny pipeline is of.
PIPELINE_OF: dict[str, str] = {
    "stable-diffusion-1.5": "StableDiffusionPipeline",
    "stable-diffusion-xl": "StableDiffusionXLPipeline",
    "flux": "FluxPipeline",
    "z-image": "ZImagePipeline",
}

#: The base models that are trained, merged and asked as tiny checkpoints
#: (tests/test_base_models.py): their class in transformers, and what is of it.
FAMILIES: dict[str, tuple[str, str]] = {
    "llava-1.5": ("LlavaForConditionalGeneration", "LLaVA-1.5"),
    "llava-v1.6-mistral": (
        "LlavaNextForConditionalGeneration",
        "LLaVA-NeXT (1.6): this one is of Mistral; those of Vicuna and Llama 3 are of one class",
    ),
    "llava-onevision": ("LlavaOnevisionForConditionalGeneration", "LLaVA-OneVision"),
    "qwen2-vl": ("Qwen2VLForConditionalGeneration", "Qwen2-VL"),
    "qwen2.5-vl": ("Qwen2_5_VLForConditionalGeneration", "Qwen2.5-VL"),
    "qwen3-vl": ("Qwen3VLForConditionalGeneration", "Qwen3-VL"),
    "idefics3": ("Idefics3ForConditionalGeneration", "Idefics3, SmolVLM"),
    "internvl": ("InternVLForConditionalGeneration", "InternVL in transformers' form (`-hf`)"),
}
