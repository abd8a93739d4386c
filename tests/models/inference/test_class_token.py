import numpy as np
import pytest
import torch

from geograft.errors import ModelMismatch
from geograft.models.inference.class_token import embed_class_token
from geograft.models.satellite import SatelliteEncoder


@pytest.mark.parametrize("change", [{}, {"depth": 1}, {"activation": "quick_gelu"}, {"heads": 4, "expansion": 2}])
def test_the_short_way_gives_the_encoders_own_vectors(make_encoder, change):
    encoder = make_encoder(**change)
    with torch.no_grad():
        for value in encoder.parameters():
            value.add_(0.05 * torch.randn_like(value))  # layer norms and biases that are not 1 and 0
        chips = torch.randn(5, 3, 16, 16)
        np.testing.assert_allclose(embed_class_token(encoder, chips), encoder.embed(chips), atol=1e-6)


def test_chips_of_another_size_are_refused_as_the_encoder_does(make_encoder):
    with pytest.raises(ModelMismatch, match=r"\(N, 3, 16, 16\)"):
        embed_class_token(make_encoder(), torch.zeros(1, 3, 20, 20))


def test_an_encoder_of_another_kind_embeds_by_itself(make_encoder):
    class Own(SatelliteEncoder):
        """An architecture of the user's."""

        def embed(self, chips):
            return chips.new_ones(len(chips), 16) / 4

    assert (embed_class_token(Own(make_encoder().settings), torch.zeros(2, 3, 16, 16)) == 0.25).all()
