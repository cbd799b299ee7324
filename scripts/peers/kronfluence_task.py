"""What Kronfluence needs of a Hugging Face language model: linear layers as nn.Linear, and a task."""

import torch
import torch.nn.functional as F
from kronfluence.task import Task
from torch import nn
from transformers.pytorch_utils import Conv1D


@torch.no_grad()
def replace_conv1d(module):
    """GPT-2's Conv1D (weight [in, out]) -> nn.Linear, which is what Kronfluence tracks."""
    for name, child in module.named_children():
        replace_conv1d(child)
        if isinstance(child, Conv1D):
            n_in, n_out = child.weight.shape
            linear = nn.Linear(n_in, n_out)
            linear.weight.copy_(child.weight.t())
            linear.bias.copy_(child.bias)
            setattr(module, name, linear)


class NextToken(Task):
    """Cross-entropy of the labels after the first, summed; of labels that are -100 there is none.  For factors they are drawn from
    the model's own distribution instead.  A batch: input_ids and labels [sequence, position]."""

    def __init__(self, modules):
        super().__init__()
        self.modules = modules

    def compute_train_loss(self, batch, model, sample=False):
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
        logits = logits.reshape(-1, logits.size(-1))
        labels = batch["labels"][:, 1:].reshape(-1)
        if sample:
            with torch.no_grad():
                drawn = torch.multinomial(torch.softmax(logits, -1), 1).flatten()
                labels = torch.where(labels == -100, labels, drawn)
        return F.cross_entropy(logits, labels, reduction="sum", ignore_index=-100)

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self):
        return self.modules

    def get_attention_mask(self, batch):
        """Positions that count: those that predict a label."""
        mask = torch.zeros_like(batch["labels"])
        mask[:, :-1] = batch["labels"][:, 1:] != -100
        return mask
