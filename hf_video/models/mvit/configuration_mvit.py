"""MViT (Fan et al., 2021, arXiv:2104.11227) and MViTv2 (Li et al., 2022, arXiv:2112.01526): configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from hf_video.base.configuration import VideoConfig, pair
from hf_video.errors import ConfigError, check_count, is_whole

Triple = tuple[int, int, int]
ROWS = ("dim_mul", "head_mul", "pool_q_stride", "pool_kv_stride")


@dataclass(frozen=True)
class BlockShape:
    """What one block is made of. Widths in channels; kernels and strides over (time, rows, columns), a kernel None
    where nothing is pooled; `tables`: entries of the relative position tables over (time, rows, columns), 0 for none.
    """

    width: int
    attention_width: int
    width_out: int
    heads: int
    kernel_q: Triple | None
    stride_q: Triple
    kernel_kv: Triple | None
    stride_kv: Triple
    tables: Triple


def _stages(depth: int, starts: tuple[int, ...], pool_everywhere: bool = False) -> dict[str, Any]:
    """Fields of a model whose channels, heads and query strides double at the blocks `starts`."""
    doubled = tuple((block, 2.0) for block in starts)
    blocks = range(depth) if pool_everywhere else starts
    strides = tuple((block, 1, 2, 2) if block in starts else (block, 1, 1, 1) for block in blocks)
    return {"num_hidden_layers": depth, "dim_mul": doubled, "head_mul": doubled, "pool_q_stride": strides}


def _version2(depth: int, starts: tuple[int, ...]) -> dict[str, Any]:
    """Fields of an MViTv2."""
    switches = ("dim_mul_in_attention", "rel_pos_spatial", "rel_pos_temporal", "residual_pooling")
    return {**_stages(depth, starts, True), **dict.fromkeys(switches, True), "use_absolute_positions": False}


_LARGE = {"embed_dim": 144, "num_attention_heads": 2, "num_frames": 40, "image_size": 312}
PRESETS = {
    "v1_b_16x4": {},
    "v1_b_32x3": {"num_frames": 32},
    "v1_24_32x3": {**_stages(24, (2, 5, 21)), "num_frames": 32, "pool_kernel": None},
    "v2_s_16x4": _version2(16, (1, 3, 14)),
    "v2_b_32x3": {**_version2(24, (2, 5, 21)), "num_frames": 32},
    "v2_l_40x3": {**_version2(48, (2, 8, 44)), **_LARGE},
}


@strict
class MViTConfig(VideoConfig):
    r"""The authors' compact fields (SlowFast's `cfg.MVIT`), which `block_shapes()` unfolds. The defaults are MViT-B
    16×4; `MViTConfig.preset(name)` makes the published sizes: v1_b_16x4, v1_b_32x3, v1_24_32x3 (24 blocks, the authors'
    `MVIT_B_32x3_CONV.yaml`), v2_s_16x4, v2_b_32x3, v2_l_40x3.

    Args:
        patch_kernel, patch_stride: the overlapping convolution of the stem over (frames, rows, columns), in frames and
            pixels; padded by half its kernel.
        embed_dim: channels after the stem. `hidden_size`, the width after the last block, follows from it.
        num_attention_heads: heads of the first block.
        dim_mul, head_mul: `[block, factor]`: where channels and heads grow. Entries beyond the depth are not used.
        pool_q_stride: `[block, time, rows, columns]`: where queries are pooled, and with them the resolution.
        pool_kv_stride_adaptive: stride of keys and values at the first block, divided by each query stride on the way.
        pool_kv_stride: in its place, `[block, time, rows, columns]` for every block that pools keys and values.
        pool_kernel: kernel of every pooling convolution; None makes it one more than the stride.
        dim_mul_in_attention: channels grow in the attention of the named block (v2), not in the MLP before it (v1).
        use_absolute_positions: learned positions, one table for space and one for time (v1).
        rel_pos_spatial, rel_pos_temporal: decomposed relative positions (v2).
        residual_pooling: pooled queries are added to what attention gathers (v2).
        drop_path_rate: stochastic depth, rising linearly from 0 to this at the last block. Published recipes: 0.2 for
            v1-B 16×4 and v2-S, 0.3 for v2-B and v1-B 32×3, 0.75 for v2-L.
        classifier_dropout: dropout before the classifier; published recipes: 0.5.
        position_grid: (time, rows, columns) of the stem that all position tables were made for, if not the one of
            `num_frames` and `image_size`; they are then interpolated. Set when a checkpoint is loaded with other sizes.

    Raises ConfigError where the fields don't fit together.
    """

    model_type = "mvit"
    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS
    patch_fields: ClassVar[tuple[str, ...]] = ("patch_stride",)

    image_size: int | list[int] | tuple[int, int] = 224
    num_frames: int = 16
    num_channels: int = 3
    patch_kernel: list[int] | tuple[int, ...] = (3, 7, 7)
    patch_stride: list[int] | tuple[int, ...] = (2, 4, 4)
    embed_dim: int = 96
    num_hidden_layers: int = 16
    num_attention_heads: int = 1
    dim_mul: list | tuple = ((1, 2.0), (3, 2.0), (14, 2.0))
    head_mul: list | tuple = ((1, 2.0), (3, 2.0), (14, 2.0))
    pool_q_stride: list | tuple = ((1, 1, 2, 2), (3, 1, 2, 2), (14, 1, 2, 2))
    pool_kv_stride_adaptive: list[int] | tuple[int, ...] | None = (1, 8, 8)
    pool_kv_stride: list | tuple | None = None
    pool_kernel: list[int] | tuple[int, ...] | None = (3, 3, 3)
    mlp_ratio: float | int = 4.0
    qkv_bias: bool = True
    dim_mul_in_attention: bool = False
    use_absolute_positions: bool = True
    rel_pos_spatial: bool = False
    rel_pos_temporal: bool = False
    residual_pooling: bool = False
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    classifier_dropout: float | int = 0.0
    position_grid: list[int] | tuple[int, ...] | None = None

    # -- what the fields unfold to

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ROWS:
            rows = getattr(self, name)
            _check_rows(name, rows)
            if rows is not None:
                setattr(self, name, [list(row) for row in rows])  # as a file gives them back
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Channels after the last block: the width of `last_hidden_state` and of the classifier's input."""
        return self.block_shapes()[-1].width_out

    @hidden_size.setter
    def hidden_size(self, width: int) -> None:
        if width != self.hidden_size:
            raise ConfigError(
                f"hidden_size={width} can't be set: it is the width after the last block, here {self.hidden_size}. "
                "Set embed_dim and dim_mul."
            )

    @property
    def grid(self) -> Triple:
        """(time, rows, columns) of the stem's tokens that `num_frames` and `image_size` make; position tables are made
        for it. Floors, as in the authors' code; a clip that is no multiple has one token more on that axis."""
        sizes = (self.num_frames, *pair(self.image_size, "image_size"))
        return tuple(size // stride for size, stride in zip(sizes, self.patch_stride, strict=True))

    def block_shapes(self) -> list[BlockShape]:
        """Every block's widths, heads, kernels and strides, first to last."""
        growth, head_growth = dict(self.dim_mul), dict(self.head_mul)
        strides_q = {block: tuple(stride) for block, *stride in self.pool_q_stride}
        strides_kv = self._strides_kv(strides_q)
        width, heads, grid = self.embed_dim, self.num_attention_heads, tuple(self.position_grid or self.grid)
        shapes = []
        for block in range(self.num_hidden_layers):
            heads = int(heads * head_growth.get(block, 1))
            grown = int(width * growth.get(block if self.dim_mul_in_attention else block + 1, 1))
            stride_q, stride_kv = strides_q.get(block, (1, 1, 1)), strides_kv.get(block, (1, 1, 1))
            shapes.append(
                BlockShape(
                    width=width,
                    attention_width=grown if self.dim_mul_in_attention else width,
                    width_out=grown,
                    heads=heads,
                    kernel_q=self._kernel(stride_q) if block in strides_q else None,
                    stride_q=stride_q,
                    kernel_kv=self._kernel(stride_kv) if block in strides_kv else None,
                    stride_kv=stride_kv,
                    tables=self._tables(grid, stride_q, stride_kv),
                )
            )
            width, grid = grown, _divided(grid, stride_q)
        return shapes

    def _strides_kv(self, strides_q: dict[int, Triple]) -> dict[int, Triple]:
        """Stride of keys and values at every block that pools them."""
        if self.pool_kv_stride_adaptive is None:
            return {block: tuple(stride) for block, *stride in self.pool_kv_stride or ()}
        stride, strides = tuple(self.pool_kv_stride_adaptive), {}
        for block in range(self.num_hidden_layers):
            stride = _divided(stride, strides_q.get(block, (1, 1, 1)))
            strides[block] = stride
        return strides

    def _kernel(self, stride: Triple) -> Triple | None:
        """The kernel of a pooling of that stride; None where it would change nothing."""
        kernel = tuple(self.pool_kernel or (s + 1 if s > 1 else 1 for s in stride))
        return None if max(*kernel, *stride) == 1 else kernel

    def _tables(self, grid: Triple, stride_q: Triple, stride_kv: Triple) -> Triple:
        """Entries of a block's relative position tables. Rows and columns both get as many as the longer side needs."""
        side = max(grid[1:])
        rows, columns = (2 * max(side // stride_q[i], side // stride_kv[i], 1) - 1 for i in (1, 2))
        spatial = (rows, columns) if self.rel_pos_spatial else (0, 0)
        return (2 * grid[0] - 1 if self.rel_pos_temporal else 0, *spatial)

    # -- checks and files

    def check(self) -> None:
        for name in ("patch_kernel", "patch_stride", "pool_kernel", "pool_kv_stride_adaptive", "position_grid"):
            values = getattr(self, name)
            if values is not None and (len(values) != 3 or not all(is_whole(v) and v >= 1 for v in values)):
                raise ConfigError(f"{name}={values!r} must be three whole numbers, 1 or more (time, rows, columns).")
        for name in ROWS:
            _check_rows(name, getattr(self, name))
        if self.pool_kv_stride_adaptive is not None and self.pool_kv_stride:
            raise ConfigError("pool_kv_stride_adaptive and pool_kv_stride exclude each other: set one of them to None.")
        check_count("embed_dim", self.embed_dim, ConfigError)
        super().check()
        if min(self.grid) < 1:
            raise ConfigError(
                f"num_frames={self.num_frames}, image_size={self.image_size} are less than one patch_stride="
                f"{tuple(self.patch_stride)}."
            )
        self._check_blocks()

    def _check_blocks(self) -> None:
        for block, shape in enumerate(self.block_shapes()):
            if shape.heads < 1 or shape.attention_width % shape.heads:
                raise ConfigError(
                    f"Block {block} has {shape.attention_width} channels for {shape.heads} heads: every head needs the "
                    "same whole number. Check embed_dim, num_attention_heads, dim_mul and head_mul."
                )
            kernels = [k for k in (shape.kernel_q, shape.kernel_kv) if k is not None]
            # Half a kernel of padding keeps queries and the max-pooled residual on one grid only for odd kernels.
            if any(k % 2 == 0 for kernel in kernels for k in kernel) or any(s % 2 and s > 1 for s in shape.stride_q):
                raise ConfigError(
                    f"Block {block} pools with kernels {kernels} and query stride {shape.stride_q}: kernels must be "
                    "odd, query strides 1 or even."
                )

    @classmethod
    def upgrade_file(cls, config_dict: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        return cls.remember_grid(config_dict, overrides)


def _divided(sizes: Triple, stride: Triple) -> Triple:
    """Each size divided by the stride and floored, at least 1."""
    return tuple(max(n // s, 1) for n, s in zip(sizes, stride, strict=True))


def _check_rows(name: str, rows: Sequence[Sequence[float]] | None) -> None:
    """Rows of a block number and positive numbers (whole ones for strides), each block once."""
    factors = name in ("dim_mul", "head_mul")
    meaning = "[block, factor]" if factors else "[block, time, rows, columns]"
    if rows is not None and not isinstance(rows, (list, tuple)):
        raise ConfigError(f"{name}={rows!r} must be a list of rows {meaning}.")
    for row in rows or ():
        right = isinstance(row, (list, tuple)) and len(row) == (2 if factors else 4)
        right = right and isinstance(row[0], int) and row[0] >= 0
        if not right or any(not isinstance(v, (int, float) if factors else int) or v <= 0 for v in row[1:]):
            raise ConfigError(f"{name} holds {row!r}; expected rows {meaning}, numbers above 0.")
    blocks = [row[0] for row in rows or ()]
    if len(set(blocks)) < len(blocks):
        raise ConfigError(f"{name} names a block twice: {blocks}.")
