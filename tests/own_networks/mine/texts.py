"""Networks for texts."""

from torch import nn


class BagOfTokens(nn.Module):
    def __init__(self, vocab_size: int, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        return self.head(self.dropout((self.embedding(input_ids) * mask).sum(1) / mask.sum(1)))


class Reader(nn.Module):
    """Start and end logits of each token, from its neighbours."""

    def __init__(self, vocab_size: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.segments = nn.Embedding(2, width)
        self.mix = nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, input_ids, token_type_ids):
        hidden, _ = self.mix(self.embedding(input_ids) + self.segments(token_type_ids))
        start, end = self.head(hidden).unbind(2)
        return start, end
