"""The encoder that pairs ask for: a plain one for one sensor, one with a stem a sensor for several."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from geograft.errors import BadSetting
from geograft.models.multi import MultiEncoder
from geograft.models.satellite import EncoderSettings, SatelliteEncoder, init_from_clip, preset_settings
from geograft.models.stems import MultiSettings, SensorStem, borrow_kernels
from geograft.pairs.dataset import PairSet
from geograft.pairs.mix import PairMix
from geograft.training.settings import TrainingSettings

AnyEncoder = SatelliteEncoder | MultiEncoder

_RGB = ("red", "green", "blue")
_KERNELS = "vision_model.embeddings.patch_embedding.weight"


def by_sensor(sets: Sequence[PairSet]) -> dict[str, PairMix]:
    """The sets of each sensor, by its name, in the order in which sensors come."""
    names = list(dict.fromkeys(pairs.sensor.name for pairs in sets))
    return {name: PairMix(tuple(pairs for pairs in sets if pairs.sensor.name == name)) for name in names}


def make_encoder(learn: Mapping[str, PairMix], settings: TrainingSettings, *, dim: int) -> AnyEncoder:
    """An encoder of the preset's shape for the chips of each sensor.

    Its weights are random, of the seed, or those of the CLIP that `settings.init` names.

    Args:
        learn: the pairs of each sensor.
        settings: preset, start and seed.
        dim: the teacher's embedding length.

    Raises:
        BadSetting: the preset does not take chips of this size.
        UnknownModel: there is no such preset, or no such CLIP.
        CheckpointMismatch: the CLIP is of another shape than the preset.
    """
    first = next(iter(learn.values())).sets[0]
    shape = preset_settings(settings.preset, bands=first.sensor.bands, dim=dim)
    torch.manual_seed(settings.seed)
    if len(learn) == 1:
        _check_size(first, shape, settings.preset)
        plain = SatelliteEncoder(shape)
        if settings.init:
            _start_from(plain, _clip(shape, settings.init))
        return plain
    several = MultiEncoder(MultiSettings.like(shape, [_stem(mix.sets[0], shape) for mix in learn.values()]))
    if settings.init:
        several.start_from(_clip(shape, settings.init))
    return several


def _clip(shape: EncoderSettings, name: str) -> SatelliteEncoder:
    """A CLIP's image tower as an encoder of red, green and blue."""
    rgb = SatelliteEncoder(dataclasses.replace(shape, bands=_RGB))
    init_from_clip(rgb, name)
    return rgb


def _start_from(encoder: SatelliteEncoder, rgb: SatelliteEncoder) -> None:
    """Start an encoder's backbone as one of red, green and blue; each band takes its colour's kernels, see `stems`."""
    weights = rgb.satellite_image_backbone.state_dict()
    bands, patch = encoder.settings.bands, encoder.settings.patch_size
    weights[_KERNELS] = borrow_kernels(weights[_KERNELS], _RGB, bands, patch)
    encoder.satellite_image_backbone.load_state_dict(weights)


def start_pixel_from_image(pixel: AnyEncoder, image: AnyEncoder) -> None:
    """Start a pixel-level encoder where an image-level one ended, its projector from the image level's head."""
    pixel.load_state_dict(image.state_dict())
    body = pixel.body if isinstance(pixel, MultiEncoder) else pixel
    norm, linear = body.projector
    backbone = body.satellite_image_backbone
    norm.load_state_dict(backbone.vision_model.post_layernorm.state_dict())
    linear.load_state_dict(backbone.visual_projection.state_dict())


def _stem(pairs: PairSet, shape: EncoderSettings) -> SensorStem:
    """The stem of a sensor: as many patches as the preset has, of whatever size."""
    size = pairs.shape[-1]
    if size % shape.grid:
        raise BadSetting(
            f"Chips of {size} px of {pairs.sensor.name} cannot be cut into {shape.grid} x {shape.grid} patches, as the "
            "preset has: make pairs with another chip_size."
        )
    return SensorStem.of(pairs.sensor, image_size=size, patch_size=size // shape.grid, gsd=pairs.gsd)


def _check_size(pairs: PairSet, shape: EncoderSettings, preset: str) -> None:
    """Refuse chips of another size than the encoder's."""
    size = pairs.shape[-1]
    if size != shape.image_size:
        raise BadSetting(
            f"The preset {preset} takes chips of {shape.image_size} px, but the pairs have {size} px: "
            "make pairs with that chip_size, or take another preset."
        )
