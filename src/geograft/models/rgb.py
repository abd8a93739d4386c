"""Ready satellite models of true-colour imagery, made of a CLIP or SigLIP that reads pictures.

RemoteCLIP, GeoRSCLIP and their kin are CLIPs that have seen imagery from above; any other CLIP is the baseline. Their
image tower becomes a satellite encoder of the sensor `rgb`, and the model's teacher is the CLIP itself.
"""

import dataclasses
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipVisionConfig, SiglipVisionModel

from geograft.errors import BadSetting, CheckpointMismatch, ModelMismatch
from geograft.models.clip import ClipTeacher
from geograft.models.model import Model
from geograft.models.preprocess import NaflexPreprocess, PhotoPreprocess
from geograft.models.satellite import LEVELS, EncoderSettings, Level, SatelliteEncoder, load_strictly
from geograft.sensors import Sensor, get_sensor

BANDS = ("red", "green", "blue")


def rgb_model(
    teacher: ClipTeacher, *, gsd: float | None = None, chip_size: int | None = None, name: str | None = None
) -> Model:
    """The satellite model of the image level that a CLIP or SigLIP makes by itself.

    Chips are read as pictures: the model's sensor is `rgb` with the mean and std of the CLIP's preprocessing. Nothing
    is resized, so that a pixel keeps its meaning on the ground; the chip has the size that the tower was built for.

    Args:
        teacher: a CLIP, SigLIP or SigLIP 2 with its image tower; it becomes the model's teacher.
        gsd: metres per pixel at which the model shall see scenes; 1 m where None, since pictures do not say it.
        chip_size: width of the chips in px, a multiple of the patch size; only SigLIP 2 of native aspect ratio can
            be asked for another one than its own.
        name: what the model is called; the teacher's name where None.

    Raises:
        CheckpointMismatch: the teacher has no image tower, or one that is not read.
        ModelMismatch: the chip size is not one that the tower takes.
    """
    if teacher.preprocess is None:
        raise CheckpointMismatch(f"{teacher.name} is a text encoder alone: a satellite model needs an image tower.")
    encoder: SatelliteEncoder | SiglipEncoder
    encoder = clip_encoder(teacher) if teacher.parts.is_clip else siglip_encoder(teacher, chip_size=chip_size)
    own = encoder.settings.image_size
    if chip_size not in {None, own}:
        raise ModelMismatch(f"{teacher.name} takes chips of {own} px, not of {chip_size} px.")
    return Model(
        {"image": encoder}, sensor=rgb_sensor(teacher.preprocess, gsd), teacher=teacher, name=name or teacher.name
    )


def rgb_sensor(preprocess: PhotoPreprocess | NaflexPreprocess, gsd: float | None = None) -> Sensor:
    """The sensor `rgb` as a CLIP's preprocessing sees it: its mean and std, at a ground sample distance.

    Raises:
        CheckpointMismatch: it reads the bands in another order.
    """
    sensor = get_sensor("rgb")
    if getattr(preprocess, "channels", "rgb") != "rgb":
        raise CheckpointMismatch("This preprocessing reads blue before red, which no satellite model here does.")
    return dataclasses.replace(
        sensor,
        gsd=float(gsd if gsd is not None else sensor.gsd),
        scale=preprocess.scale,
        mean=preprocess.mean,
        std=preprocess.std,
    )


# --- CLIP -------------------------------------------------------------------------------------------------


def clip_encoder(teacher: ClipTeacher) -> SatelliteEncoder:
    """A CLIP's image tower as a satellite encoder.

    The image level is the tower as it is. The projector, which the pixel level would train, starts as the image
    level's own head (`post_layernorm`, then `visual_projection`), so that both levels read patches alike.

    Raises:
        CheckpointMismatch: the tower has a shape that satellite encoders do not have.
    """
    weights = teacher.model.state_dict()
    tower = {key: value for key, value in weights.items() if key.startswith(("vision_model.", "visual_projection."))}
    config = getattr(teacher.model.config, "vision_config", teacher.model.config)
    return encoder_of_tower(config, tower, dim=teacher.dim, source=teacher.name)


def encoder_of_tower(config: Any, tower: dict[str, Tensor], *, dim: int, source: str) -> SatelliteEncoder:
    """A satellite encoder of the weights of a CLIP's image tower.

    Args:
        config: transformers' `CLIPVisionConfig`.
        tower: weights under the keys of `CLIPVisionModelWithProjection`.
        dim: length of the embeddings.
        source: what an error calls the weights.
    """
    encoder = SatelliteEncoder(settings_of_tower(config, dim=dim, source=source))
    load_strictly(encoder.satellite_image_backbone, tower, source=source)
    head = {
        "0.weight": tower["vision_model.post_layernorm.weight"],
        "0.bias": tower["vision_model.post_layernorm.bias"],
        "1.weight": tower["visual_projection.weight"],
    }
    load_strictly(encoder.projector, head, source=source)
    return encoder.eval()


def settings_of_tower(config: Any, *, dim: int, source: str, bands: tuple[str, ...] = BANDS) -> EncoderSettings:
    """The shape of a satellite encoder that a CLIP's image tower has.

    Raises:
        CheckpointMismatch: satellite encoders do not have such a shape.
    """
    expansion, rest = divmod(config.intermediate_size, config.hidden_size)
    if rest or config.layer_norm_eps != 1e-5 or config.num_channels != len(bands):
        raise CheckpointMismatch(
            f"{source} has a feed-forward width of {config.intermediate_size} at a width of {config.hidden_size}, "
            f"{config.num_channels} bands and layer norms of {config.layer_norm_eps:g}; satellite encoders have a "
            f"whole multiple, {len(bands)} bands and 1e-05. It can be a teacher, but no satellite model."
        )
    return EncoderSettings(
        bands=bands,
        dim=dim,
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        expansion=expansion,
        activation=config.hidden_act,
    )


# --- SigLIP -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SiglipSettings:
    """The shape of a SigLIP's image tower.

    Attributes:
        bands: band names in the order of the input channels.
        image_size: chip width and height in px.
        patch_size: patch width and height in px.
        width: length of the tokens, which is that of the embeddings as well.
        depth: number of transformer layers.
        heads: attention heads; divides `width`.
        hidden: width of the feed-forward layers.
        activation: its name in transformers.
    """

    bands: tuple[str, ...]
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    hidden: int
    activation: str = "gelu_pytorch_tanh"

    def __post_init__(self) -> None:
        """Refuse a shape that cannot be built."""
        sizes = (self.image_size, self.patch_size, self.width, self.depth, self.heads, self.hidden)
        if min(sizes) < 1 or not self.bands or self.width % self.heads or self.image_size % self.patch_size:
            raise BadSetting(
                "A SigLIP has sizes of at least 1, bands, a width of whole heads and chips of whole patches."
            )

    @property
    def dim(self) -> int:
        """Length of the embeddings."""
        return self.width

    @property
    def grid(self) -> int:
        """Patches along one side of a chip."""
        return self.image_size // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""
        return {**dataclasses.asdict(self), "bands": list(self.bands)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SiglipSettings":
        """The settings of `to_dict`'s values.

        Raises:
            CheckpointMismatch: a setting is missing, unknown or out of range.
        """
        try:
            return cls(**{**values, "bands": tuple(values["bands"])})
        except (KeyError, TypeError, BadSetting) as error:
            raise CheckpointMismatch(f"These are not the settings of a SigLIP's image tower ({error}).") from error


class SiglipEncoder(nn.Module):
    """A SigLIP's image tower as a satellite encoder: chips in, unit vectors in the space of its text encoder out.

    SigLIP (Zhai et al., 2023) has no class token. Its head attends with one learned probe q over all tokens x_i:
    a = W_o Σ_i softmax_i(q·W_k x_i) W_v x_i + b, then a + MLP(LN(a)). To read a patch in the same space the head is
    given that token alone; the softmax over one token is 1, so a_i = W_o (W_v x_i + b_v) + b_o, whatever the probe:
    one matrix product a patch and no attention. The chip's own a mixes the same values, head by head, by the probe's
    attention. The head was trained on whole pictures only, as a CLIP's was on the class token only.

    Args:
        settings: the shape; weights are random until they are read.
    """

    def __init__(self, settings: SiglipSettings) -> None:
        super().__init__()
        self.settings = settings
        self.tower = SiglipVisionModel(_config(settings))

    def embed(self, chips: Tensor) -> Tensor:
        """One unit vector a chip, by the pooling head.

        Args:
            chips: normalised pixels, (N, C, S, S).

        Returns:
            (N, D).

        Raises:
            ModelMismatch: the chips have other bands or another size than the encoder.
        """
        return functional.normalize(self._run(chips).pooler_output, dim=-1)

    def tokens(self, chips: Tensor, *, level: Level = "image") -> Tensor:
        """One unit vector a patch, by the pooling head on the patch's token alone.

        Args:
            chips: normalised pixels, (N, C, S, S).
            level: "image"; there is no other.

        Returns:
            (N, D, h, w), row 0 at the chip's top.

        Raises:
            ModelMismatch: the chips have other bands or another size than the encoder, or another level is asked for.
        """
        if level != "image":
            raise ModelMismatch(f"A SigLIP has the image level only, not {level!r} (levels are {', '.join(LEVELS)}).")
        vectors = functional.normalize(self._alone(self._run(chips).last_hidden_state), dim=-1)
        grid = self.settings.grid
        maps: Tensor = vectors.transpose(1, 2).unflatten(2, (grid, grid))  # type: ignore[no-untyped-call]
        return maps

    def forward(self, chips: Tensor, *, level: Level = "image") -> Tensor:
        """`embed`; `tokens` is for maps."""
        if level != "image":
            raise ModelMismatch(f"A SigLIP has the image level only, not {level!r}.")
        return self.embed(chips)

    def _alone(self, hidden: Tensor) -> Tensor:
        """The pooling head on every token by itself, (N, T, width)."""
        head = self.tower.head
        width = self.settings.width
        attention = head.attention
        values = functional.linear(hidden, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
        read = attention.out_proj(values)
        return read + head.mlp(head.layernorm(read))  # type: ignore[no-any-return]

    def _run(self, chips: Tensor) -> Any:
        """The tower's output for chips of the right shape."""
        settings = self.settings
        expected = (len(settings.bands), settings.image_size, settings.image_size)
        if tuple(chips.shape[1:]) != expected:
            raise ModelMismatch(
                f"The encoder takes chips of the shape (N, {', '.join(map(str, expected))}) with the bands "
                f"{', '.join(settings.bands)}, but got {tuple(chips.shape)}."
            )
        return self.tower(pixel_values=chips)


def siglip_encoder(teacher: ClipTeacher, *, chip_size: int | None = None) -> SiglipEncoder:
    """A SigLIP's image tower as a satellite encoder.

    SigLIP 2 of native aspect ratio is fixed at square chips: its linear map of a patch becomes a convolution, and its
    positions are scaled to the chip's grid once, as the model does for every picture. A tower whose pictures are no
    whole number of patches (so400m: 384 px in patches of 14) leaves a rest unread; its chips are without it (378 px).

    Raises:
        CheckpointMismatch: the tower has no pooling head or a shape that is not square.
        ModelMismatch: the chip size is no multiple of the patch size.
    """
    config = getattr(teacher.model.config, "vision_config", teacher.model.config)
    tower = getattr(teacher.model, "vision_model", teacher.model)
    if not config.vision_use_head or not isinstance(config.patch_size, int):
        raise CheckpointMismatch(f"{teacher.name} has no pooling head or patches that are not square.")
    weights = dict(tower.state_dict())
    patch = config.patch_size
    if isinstance(teacher.preprocess, NaflexPreprocess):
        grid = round(config.num_patches**0.5) if chip_size is None else _grid(chip_size, patch, teacher.name)
        weights = _fixed(weights, patch, grid)
    else:
        grid = config.image_size // patch
    encoder = SiglipEncoder(
        SiglipSettings(
            bands=BANDS,
            image_size=grid * patch,
            patch_size=patch,
            width=config.hidden_size,
            depth=config.num_hidden_layers,
            heads=config.num_attention_heads,
            hidden=config.intermediate_size,
            activation=config.hidden_act,
        )
    )
    load_strictly(encoder.tower, weights, source=teacher.name)
    return encoder.eval()


def _grid(size: int, patch: int, name: str) -> int:
    """Patches along one side of a chip."""
    if size < patch or size % patch:
        raise ModelMismatch(f"{name} takes chips of a multiple of {patch} px, not of {size} px.")
    return size // patch


def _fixed(weights: dict[str, Tensor], patch: int, grid: int) -> dict[str, Tensor]:
    """The weights of SigLIP 2 of native aspect ratio as those of a SigLIP of `grid` × `grid` patches."""
    linear = weights["embeddings.patch_embedding.weight"]
    positions = weights["embeddings.position_embedding.weight"]
    side = round(len(positions) ** 0.5)
    square = positions.T.reshape(1, -1, side, side)
    scaled = functional.interpolate(square, (grid, grid), mode="bilinear", align_corners=False, antialias=True)
    return weights | {
        "embeddings.patch_embedding.weight": linear.reshape(len(linear), patch, patch, 3).permute(0, 3, 1, 2),
        "embeddings.position_embedding.weight": scaled.flatten(2)[0].T.contiguous(),
    }


def _config(settings: SiglipSettings) -> SiglipVisionConfig:
    """Settings in transformers' words."""
    return SiglipVisionConfig(
        hidden_size=settings.width,
        intermediate_size=settings.hidden,
        num_hidden_layers=settings.depth,
        num_attention_heads=settings.heads,
        num_channels=len(settings.bands),
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        hidden_act=settings.activation,
        attn_implementation="sdpa",
    )
