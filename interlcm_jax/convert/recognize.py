"""Tells what network a file's keys are of, for the message when it is another than the one asked for."""

from collections.abc import Collection

# The first whose key is there is what the file looks like: those that others contain come before them.
_SIGNS = (
    ("model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion checkpoint in CompVis' layout"),
    ("control_model.input_hint_block.0.weight", "a ControlNet in CompVis' layout"),
    ("input_hint_block.0.weight", "a ControlNet in CompVis' layout"),
    ("input_blocks.0.0.weight", "a UNet in CompVis' layout"),
    ("controlnet_cond_embedding.conv_in.weight", "a ControlNet, as InterLCM's Spatial Encoder is"),
    ("up_blocks.0.resnets.0.conv1.weight", "a UNet"),
    ("encoder.down_blocks.0.resnets.0.conv1.weight", "an autoencoder"),
    ("first_stage_model.encoder.down.0.block.0.conv1.weight", "an autoencoder in CompVis' layout"),
    ("encoder.down.0.block.0.conv1.weight", "an autoencoder in CompVis' layout"),
    ("vision_model.embeddings.class_embedding", "CLIP's vision tower"),
    ("embeddings.class_embedding", "CLIP's vision tower"),
    ("visual.class_embedding", "CLIP in OpenAI's layout"),
    ("text_model.embeddings.token_embedding.weight", "CLIP's text encoder"),
    ("body.conv1.weight", "RetinaFace"),
    ("body.stage1.0.0.weight", "RetinaFace"),
    ("encoder.0.conv2d.weight", "ParseNet"),
    ("conv_body.weight", "Real-ESRGAN's RRDBNet"),
    ("body.0.weight", "Real-ESRGAN's compact network"),
    ("features.0.weight", "VGG16"),
    ("lin0.model.1.weight", "the heads of LPIPS"),
    ("main.0.weight", "a discriminator"),
    ("blocks.2.conv1.weight", "InterLCM's Visual Encoder"),
)


def recognize(keys: Collection[str]) -> str | None:
    """What network a state dict's keys look like; None if like none that is known here."""
    if any(".lora_down." in key or ".lora_A." in key for key in keys):
        return "a LoRA"
    return next((name for key, name in _SIGNS if key in keys), None)


def another_network(keys: Collection[str], wanted: Collection[str]) -> str | None:
    """What to say where `keys` look like another network than `wanted`; None where they may be the same."""
    found, expected = recognize(keys), recognize(wanted)
    return f"this looks like {found}; wanted is {expected}" if found and expected and found != expected else None
