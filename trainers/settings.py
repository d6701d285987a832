"""Training configs: the fields that one may write in the YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pv_merge.data.settings import InstructionDataset, PairsDataset, StrictSettings

Polarity = Literal["positive", "negative"]
POLARITIES: tuple[Polarity, Polarity] = ("positive", "negative")

Dtype = Literal["float32", "bfloat16", "float16"]


class TrainingSettings(StrictSettings):
    """What ``pv-train dpo`` and ``pv-train sft`` have in common."""

    base_model: str
    """Folder or Hub name of the checkpoint that training starts from."""
    lora: dict[str, Any] | None = None
    """PEFT's LoraConfig; leave out for full fine-tuning."""
    base_dtype: Dtype = "float32"
    """Dtype that the base is loaded in. Under LoRA the base is frozen, and a narrower one halves its
    memory; without LoRA it would train the weights themselves in it, and needs ``allow_lossy``."""
    quantization: Literal["nf4"] | None = None
    """QLoRA: hold the frozen base in 4 bits (bitsandbytes, CUDA). The adapter stays in float32."""
    attn_implementation: str | None = None
    """Attention of transformers, such as ``sdpa``, ``flash_attention_2`` or ``eager``."""
    use_kernels: bool = False
    """Replace layers by fused kernels of the Hub on a GPU (``pip install kernels``)."""
    save_dtype: Dtype = "float32"
    """Dtype that full fine-tuned weights are saved in; a narrower one needs ``allow_lossy``."""
    allow_lossy: bool = False
    """Allow weights that are trained or saved in a dtype narrower than float32. The share of the
    first step's updates that the dtype loses is then measured, shown and recorded."""
    early_stopping_patience: Annotated[int, Field(gt=0)] | None = None
    """Stop when the held-out loss has not improved in so many evaluations, and keep the best."""
    output_dir: str
    """Folder that the result appears in."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of TRL's config."""
        raise NotImplementedError


class PairSettings(TrainingSettings):
    """What ``pv-train dpo`` and ``pv-train reward`` have in common."""

    preference: str
    """Name of the preference, such as ``helpful``."""
    dataset: PairsDataset
    """Training pairs; a negative policy reads the same rows with chosen and rejected swapped."""
    adapter_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype that a finished adapter is stored in. Training is in float32 either way, and since an
    adapter is the delta itself, bfloat16 costs it 0.2 % and halves the file."""


class DPOSettings(PairSettings):
    """A training config for ``pv-train dpo``."""

    eval_dataset: PairsDataset | None = None
    """Held-out pairs, for the closing table and for evaluation during training."""
    tree: bool = True
    """Read each batch as a tree of tokens: a prompt once for both answers, what several prompts share
    once for all, and nothing padded. Same loss and gradients; false goes by TRL's padded rows."""
    dpo: dict[str, Any] = Field(default_factory=dict)
    """TRL's DPOConfig."""
    protected: bool | None = None
    """Whether a negative eta of this preference needs an explicit permission in the recipe;
    by default it does for preferences called harmless, harmlessness, safe or safety."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of TRL's DPOConfig."""
        return self.dpo


class RewardSettings(PairSettings):
    """A training config for ``pv-train reward``."""

    eval_dataset: PairsDataset | None = None
    """Held-out pairs: the share of them that the model orders right is in its manifest."""
    reward: dict[str, Any] = Field(default_factory=dict)
    """TRL's RewardConfig."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of TRL's RewardConfig."""
        return self.reward


class SFTSettings(TrainingSettings):
    """A training config for ``pv-train sft``."""

    dataset: InstructionDataset
    """Training rows."""
    eval_dataset: InstructionDataset | None = None
    """Held-out rows."""
    sft: dict[str, Any] = Field(default_factory=dict)
    """TRL's SFTConfig."""

    @property
    def options(self) -> dict[str, Any]:
        """The options of TRL's SFTConfig."""
        return self.sft
