"""VIOLET's heads (Fu et al. 2021, arXiv:2111.12681; `main_{retrieval,qaoe,qamc,pretrain}.py` of the authors): each
reads the joint encoder's state at the text's [CLS], and pretraining the states of words and patches too. The trunk
stands in `encoder.py`, what pretraining hides in `masking.py`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform
from transformers.utils import ModelOutput

from hf_video.base.losses import contrastive_loss
from hf_video.base.outputs import VideoClassifierOutput
from hf_video.errors import ModelInputError
from hf_video.models.violet import masking
from hf_video.models.violet.configuration_violet import VioletConfig
from hf_video.models.violet.encoder import VioletModel, VioletPreTrainedModel, classifier_output
from hf_video.models.violet.visual_tokenizer import VioletVisualTokenizer, VioletVisualTokenizerConfig  # noqa: F401


@dataclass
class VioletRetrievalOutput(ModelOutput):
    """`loss` with `return_loss`; `logits_per_video` (V, N), matching scores over the temperature, and
    `logits_per_text` (N, V), the same turned."""

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None


@dataclass
class VioletForPreTrainingOutput(ModelOutput):
    """`loss`, the sum of `mtm_loss` (masked words), `mvm_loss` (masked visual tokens) and `vtm_loss` (matching), each a
    scalar; `mtm_logits` (B, L, words); `mvm_logits` (B, T·(1 + h·w), codes), a frame's own token before its patches;
    `vtm_logits` (B, 1 + negatives), the video's own text first; `mtm_labels` (B, L) and `mvm_labels` (B, T, h, w): what
    was hidden, -100 elsewhere; `hidden_states` and `attentions` of the joint encoder."""

    loss: torch.Tensor | None = None
    mtm_loss: torch.Tensor | None = None
    mvm_loss: torch.Tensor | None = None
    vtm_loss: torch.Tensor | None = None
    mtm_logits: torch.Tensor | None = None
    mvm_logits: torch.Tensor | None = None
    vtm_logits: torch.Tensor | None = None
    mtm_labels: torch.Tensor | None = None
    mvm_labels: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class VioletHead(nn.Module):
    """Dropout, a hidden layer of twice the width, ReLU: (…, D) -> (…, outputs)."""

    def __init__(self, config: VioletConfig, outputs: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.dense = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.out = nn.Linear(2 * config.hidden_size, outputs)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.out(F.relu(self.dense(self.dropout(states))))


class VioletForVideoTextRetrieval(VioletPreTrainedModel):
    """Does this text describe this video? Every pair goes through the joint encoder, so videos × texts passes.

    For a collection, embed each side once and score the pairs in parts:

        video, text = model.embed_video(pixel_values), model.embed_text(input_ids)   # (V, n, D), (N, L, D)
        probability = model.score(video[i], text[j], attention_mask[j])              # i, j: numbers of pairs, (P,)
    """

    loss_joins_samples = True

    def __init__(self, config: VioletConfig) -> None:
        super().__init__(config)
        self.violet = VioletModel(config)
        self.matching_head = VioletHead(config, 1)
        self.post_init()

    def embed_video(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(V, T, C, H, W) -> tokens (V, T·(1 + h·w), D), before they meet a text."""
        return self.violet.embed_video(pixel_values)

    def embed_text(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """(N, L) -> tokens (N, L, D)."""
        self.check_text(input_ids, None)
        return self.violet.embed_text(input_ids, token_type_ids)

    def pair_scores(
        self, video: torch.Tensor, text: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Matching score of video i and text i, (P,): tokens (P, n, D) and (P, L, D), the text's mask (P, L)."""
        return self.matching_head(self.violet.join(video, text, attention_mask).text_cls)[:, 0]

    def score(
        self, video: torch.Tensor, text: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """How probable it is that text i describes video i, (P,): the sigmoid of `pair_scores`, as the authors
        evaluate."""
        return self.pair_scores(video, text, attention_mask).sigmoid()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        return_dict: bool | None = None,
    ) -> VioletRetrievalOutput | tuple:
        """Scores all texts with all videos, every pair at once.

        Args:
            input_ids, attention_mask, token_type_ids: Texts (N, L); 1 in the mask is a word, 0 padding.
            pixel_values: Clips (V, T, C, H, W), normalised.
            return_loss: Whether text i is that of video i and a loss is wanted: a softmax over texts and over videos,
                or over
                texts alone (`retrieval_loss` of the configuration).
            return_dict: As in transformers; None takes the configuration's.
        """
        self.check_input(pixel_values)
        self.check_text(input_ids, attention_mask)
        videos, texts = len(pixel_values), len(input_ids)
        if return_loss and videos != texts:
            raise ModelInputError(f"{texts} texts and {videos} videos came; for the loss, text i is that of video i.")
        video, text = self.embed_video(pixel_values), self.embed_text(input_ids, token_type_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        pairs = self.pair_scores(
            video.repeat_interleave(texts, 0), text.repeat(videos, 1, 1), mask.repeat(videos, 1)
        ).unflatten(0, (videos, texts))
        logits = pairs / self.config.matching_temperature
        loss = None
        if return_loss:
            of_video = F.cross_entropy(logits.float(), torch.arange(videos, device=logits.device))
            loss = of_video if self.config.retrieval_loss == "video" else contrastive_loss(logits)
        output = VioletRetrievalOutput(loss=loss, logits_per_video=logits, logits_per_text=logits.t())
        return self.to_output(output, return_dict)


class VioletForQuestionAnswering(VioletPreTrainedModel):
    """A question's answer out of `config.id2label`, the answers that training knew."""

    accepts_loss_kwargs = True

    def __init__(self, config: VioletConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.violet = VioletModel(config)
        self.classifier = VioletHead(config, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple:
        """Answers question i on video i.

        Args:
            input_ids, attention_mask, token_type_ids: Questions (B, L); 1 in the mask is a word, 0 padding.
            pixel_values: Clips (B, T, C, H, W), normalised.
            labels: (B,) numbers of answers; -100 leaves a question out whose answer the model doesn't know.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, answers), and `loss` with labels.
        """
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        states = self.violet(input_ids, attention_mask, pixel_values, token_type_ids, return_dict=True, **flags)
        logits = self.classifier(states.text_cls)
        return self.to_output(classifier_output(logits, labels, num_items_in_batch, states), return_dict)


class VioletForMultipleChoice(VioletPreTrainedModel):
    """Which of several texts fits a video. An option's text is the question and the option, one after the other."""

    accepts_loss_kwargs = True

    def __init__(self, config: VioletConfig) -> None:
        super().__init__(config)
        self.violet = VioletModel(config)
        self.matching_head = VioletHead(config, 1)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> VideoClassifierOutput | tuple:
        """Chooses among options for each video.

        Args:
            input_ids, attention_mask, token_type_ids: Options (B, O, L), each behind its question; 1 in the mask is a
                word.
            pixel_values: Clips (B, T, C, H, W), normalised.
            labels: (B,) numbers of options.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.
            num_items_in_batch: Labels of the whole effective batch, by which Trainer divides the loss.

        Returns:
            `logits` (B, O), and `loss` with labels.
        """
        self.check_input(pixel_values)
        self.check_text(input_ids, attention_mask, ndim=3)
        if len(input_ids) != len(pixel_values):
            raise ModelInputError(f"Options for {len(input_ids)} videos and {len(pixel_values)} videos came.")
        options = input_ids.shape[1]
        attentions, hidden_states = self.resolve_output_flags(output_attentions, output_hidden_states)
        states = self.violet.join(
            self.violet.embed_video(pixel_values).repeat_interleave(options, 0),
            self.violet.embed_text(*(None if x is None else x.flatten(0, 1) for x in (input_ids, token_type_ids))),
            None if attention_mask is None else attention_mask.flatten(0, 1),
            output_attentions=attentions,
            output_hidden_states=hidden_states,
        )
        logits = self.matching_head(states.text_cls).view(-1, options)
        return self.to_output(classifier_output(logits, labels, num_items_in_batch, states), return_dict)


class VioletWordHead(nn.Module):
    """BERT's head for masked words. Its last matrix is its own, not that of the word embeddings (as officially)."""

    def __init__(self, config: VioletConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config.text_config)
        self.decoder = nn.Linear(config.hidden_size, config.text_config.vocab_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(states))


class VioletForPreTraining(VioletPreTrainedModel):
    """Masked words, masked visual tokens and matching. A step needs clips, texts and the clips' visual tokens; what to
    hide is drawn inside:

        codes = tokenizer(pixel_values)   # a VioletVisualTokenizer; once for a data set
        model(input_ids, attention_mask, pixel_values, visual_tokens=codes).loss.backward()

    `hide` draws it outside, for masks that stay the same.
    """

    loss_joins_samples = True

    def __init__(self, config: VioletConfig) -> None:
        super().__init__(config)
        self.violet = VioletModel(config)
        self.matching_head = VioletHead(config, 1)
        self.word_head = VioletWordHead(config)
        self.visual_head = VioletHead(config, config.visual_vocab_size)
        self.post_init()

    @torch.no_grad()
    def hide(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        pixel_values: torch.Tensor,
        visual_tokens: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """What `forward` takes, with words and patches hidden and their labels, of clips with codes (B, T, h, w).

        Half of the samples are masked by what the joint encoder looks at now, which costs a pass (see `masking`).
        `generator`: a CPU one, for masks that repeat. Raises ModelInputError for codes of another shape."""
        states = self.violet(
            input_ids, attention_mask, pixel_values, token_type_ids, output_attentions=True, return_dict=True
        )
        words = ~torch.isin(input_ids, torch.tensor(self.config.special_token_ids, device=input_ids.device))
        words = words if attention_mask is None else words & attention_mask.bool()
        patches, masked_words = masking.draw_masks(
            masking.received_attention(states.attentions),
            words,
            self.token_grid(pixel_values),
            self.config.mask_probability,
            generator=generator,
        )
        black = -torch.tensor(self.config.image_mean) / torch.tensor(self.config.image_std)
        hidden = {
            "input_ids": input_ids.masked_fill(masked_words, self.config.mask_token_id),
            "attention_mask": attention_mask,
            "pixel_values": masking.hide_patches(pixel_values, patches, black),
            "token_type_ids": token_type_ids,
            "mtm_labels": masking.labels_where(input_ids, masked_words),
            "mvm_labels": masking.labels_where(visual_tokens, patches),
        }
        return {name: value for name, value in hidden.items() if value is not None}

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        visual_tokens: torch.Tensor | None = None,
        mtm_labels: torch.Tensor | None = None,
        mvm_labels: torch.Tensor | None = None,
        negatives: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VioletForPreTrainingOutput | tuple:
        """Predicts hidden words and patches, and which texts are of which videos.

        Args:
            input_ids, attention_mask, token_type_ids: Texts (B, L); 1 in the mask is a word, 0 padding.
            pixel_values: Clips (B, T, C, H, W), normalised; video i belongs to text i.
            visual_tokens: Codes (B, T, h, w) of the clips; words and patches are then hidden here.
            mtm_labels, mvm_labels: For inputs with words and patches hidden already, what stood there: (B, L) and
                (B, T, h, w), -100 where nothing was hidden.
            negatives: (B, k), for each video the numbers of k wrong texts; drawn from the batch where missing.
            output_attentions, output_hidden_states, return_dict: As in transformers; None takes the configuration's.

        Returns:
            Predictions, and `loss` with labels or visual tokens. Attentions and hidden states are those of the hidden
            inputs
            with their own texts.

        Raises:
            ModelInputError: Shapes don't fit together.
        """
        if visual_tokens is not None:
            if mtm_labels is not None or mvm_labels is not None:
                raise ModelInputError(
                    "Pass visual_tokens (masks are drawn) or labels (they are drawn already), not both."
                )
            self.check_input(pixel_values)
            self.check_text(input_ids, attention_mask)
            given = self.hide(input_ids, attention_mask, pixel_values, visual_tokens, token_type_ids)
            input_ids, pixel_values = given["input_ids"], given["pixel_values"]
            mtm_labels, mvm_labels = given["mtm_labels"], given["mvm_labels"]
        flags = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        states = self.violet(input_ids, attention_mask, pixel_values, token_type_ids, return_dict=True, **flags)
        count = states.video_tokens.shape[1]
        matching = self._matching_scores(states, input_ids, attention_mask, token_type_ids, negatives)
        output = VioletForPreTrainingOutput(
            mtm_logits=self.word_head(states.last_hidden_state[:, count:]),
            mvm_logits=self.visual_head(states.last_hidden_state[:, :count]),
            vtm_logits=matching / self.config.matching_temperature,
            mtm_labels=mtm_labels,
            mvm_labels=mvm_labels,
            hidden_states=states.hidden_states,
            attentions=states.attentions,
        )
        if mtm_labels is not None or mvm_labels is not None:
            self._add_losses(output, self.token_grid(pixel_values))
        return self.to_output(output, return_dict)

    def _matching_scores(self, states, input_ids, attention_mask, token_type_ids, negatives) -> torch.Tensor:
        """Scores (B, 1 + k) of each video with its own text, from the pass that is done already, and with k others."""
        own = self.matching_head(states.text_cls)
        batch = len(input_ids)
        if negatives is None:
            negatives = masking.other_rows(batch, min(self.config.matching_negatives, batch - 1), input_ids.device)
        elif negatives.ndim != 2 or len(negatives) != batch:
            raise ModelInputError(f"negatives has shape {tuple(negatives.shape)}; expected ({batch}, wrong texts).")
        wrong = negatives.shape[1]
        if not wrong:
            return own
        video, rows = states.video_tokens.repeat_interleave(wrong, 0), negatives.flatten()
        text = self.violet.embed_text(input_ids, token_type_ids)[rows]
        others = self.violet.join(video, text, None if attention_mask is None else attention_mask[rows])
        return torch.cat([own, self.matching_head(others.text_cls).view(batch, wrong)], dim=1)

    def _add_losses(self, output: VioletForPreTrainingOutput, grid: masking.Grid) -> None:
        for name, shape in (("mtm", output.mtm_logits.shape[:2]), ("mvm", (len(output.mvm_logits), *grid))):
            labels = getattr(output, f"{name}_labels")
            if labels is not None and tuple(labels.shape) != tuple(shape):
                raise ModelInputError(f"{name}_labels has shape {tuple(labels.shape)}; expected {tuple(shape)}.")
        first = torch.zeros(len(output.vtm_logits), dtype=torch.int64, device=output.vtm_logits.device)
        output.vtm_loss = masking.cross_entropy_where_hidden(output.vtm_logits, first)
        if output.mtm_labels is not None:
            output.mtm_loss = masking.cross_entropy_where_hidden(output.mtm_logits, output.mtm_labels)
        if output.mvm_labels is not None:
            patches = output.mvm_logits.unflatten(1, (grid[0], -1))[:, :, 1:]
            output.mvm_loss = masking.cross_entropy_where_hidden(patches, output.mvm_labels.flatten(2))
        output.loss = sum(loss for loss in (output.mtm_loss, output.mvm_loss, output.vtm_loss) if loss is not None)
