"""What the published code really starts from (`init_weights` does not reach most modules)."""

import math

import torch
from small_model import DATA, MODEL

from configs.schema import BEVNeXtConfig, DataConfig, HeadConfig
from detectors import build_detector


def test_initial_values():
    torch.manual_seed(0)
    state = build_detector(BEVNeXtConfig(), DataConfig()).state_dict()

    def bounds(name: str) -> float:
        return float(state[name].abs().max())

    bias = state["proposal_head.task_heads.1.heatmap.1.bias"]
    assert 0 < bias.abs().max() <= 1 / math.sqrt(64 * 9)  # PyTorch's default, not -2.19
    head = state["proposal_head.shared_conv.conv.weight"]
    assert abs(head.std() - math.sqrt(2 / (64 * 9))) < 0.05 * head.std()  # He normal, fan-out
    assert abs(bounds("img_neck.fpn_convs.0.conv.weight") - math.sqrt(6 / (1024 * 9))) < 1e-4  # Xavier
    assert not state["img_neck.fpn_convs.0.conv.bias"].any()
    assert abs(bounds("transformer_neck.bev_embedding.weight") - math.sqrt(6 / (16384 + 80))) < 1e-4
    assert abs(bounds("transformer_neck.shared_conv.conv.weight") - math.sqrt(6 / ((80 + 256) * 9))) < 1e-4
    assert not state["img_view_transformer.depth_net.context_conv.0.conv_offset.weight"].any()
    assert state["img_view_transformer.crf.ws.0"].tolist() == [torch.tensor(0.015).item()]
    attention = "transformer_neck.decoder.layers.0.attentions.0.deformable_attention."
    assert not state[attention + "attention_weights.weight"].any()
    assert not state[attention + "sampling_offsets.weight"].any()
    directions = state[attention + "sampling_offsets.bias"].view(8, 8, 2)
    torch.testing.assert_close(directions[0], torch.tensor([[1.0, 0]] * 4 + [[2.0, 0]] * 4))
    torch.testing.assert_close(directions[1, 7], torch.tensor([2.0, 2.0]))


def test_the_heat_map_bias_can_be_chosen():
    head = HeadConfig(channels=8, heatmap_bias=-2.19)
    state = build_detector(MODEL.model_copy(update={"head": head}), DATA).state_dict()
    for t in range(6):
        assert (state[f"proposal_head.task_heads.{t}.heatmap.1.bias"] == -2.19).all()
