import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)


def tiny_sam(side: int = 128, width: int = 32) -> Sam:
    """SAM's own parts with 0.1 M random parameters; every answer of its three gets chosen."""
    torch.manual_seed(1)
    grid = side // 16
    sam = Sam(
        ImageEncoderViT(
            img_size=side,
            embed_dim=width,
            depth=2,
            num_heads=2,
            out_chans=width,
            use_rel_pos=True,
            window_size=4,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(
            embed_dim=width,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=4,
        ),
        MaskDecoder(
            transformer_dim=width,
            transformer=TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=64, num_heads=4),
            iou_head_hidden_dim=width,
        ),
    )
    for values in sam.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.2)
    return sam
