"""SenCLIP's checkpoints (Jain et al., WACV 2025, arXiv 2412.08536): CLIPs whose image tower reads Sentinel-2.

What its authors publish (`SenCLIP_AvgPool_ViTB32.ckpt` and others) is loaded strictly into OpenAI's CLIP by their
own evaluation, so it has OpenAI's layout. A checkpoint of its training is a Lightning file with that CLIP under
`learner.encoder.model.`; the projection head, the pooling of photos and the queue beside it serve training only, the
evaluation uses the CLIP alone.
"""

from collections.abc import Mapping

from torch import Tensor

from geograft.errors import CheckpointMismatch

CLIP = "learner.encoder.model."
_TRAINING = ("learner.projection_head.", "learner.pooling_layer.", "learner.queue")


def is_training(weights: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of a checkpoint of SenCLIP's training."""
    return any(key.startswith(CLIP) for key in weights)


def take_clip(weights: Mapping[str, Tensor], *, source: str) -> tuple[dict[str, Tensor], list[str]]:
    """The CLIP inside a checkpoint of SenCLIP's training, in OpenAI's layout, and the keys that were left out.

    Raises:
        CheckpointMismatch: there are weights that SenCLIP's training does not have.
    """
    clip = {key.removeprefix(CLIP): value for key, value in weights.items() if key.startswith(CLIP)}
    left_out = [key for key in weights if key.startswith(_TRAINING) or key == "logit_scale"]
    if strangers := [key for key in weights if not key.startswith(CLIP) and key not in set(left_out)]:
        raise CheckpointMismatch(f"{source} holds {strangers[0]}, which SenCLIP's training does not have.")
    return clip, left_out
