"""flair: its SequenceTagger (bidirectional LSTM and CRF), trained by its ModelTrainer."""

import logging
import tempfile
from pydoc_data.topics import topics

import flair
from flair.data import Corpus, Sentence
from flair.datasets import FlairDatapointDataset
from flair.embeddings import OneHotEmbeddings
from flair.models import SequenceTagger
from flair.trainers import ModelTrainer

WHAT = "sequence tagger, bidirectional LSTM of 256 and CRF"
logging.getLogger("flair").setLevel(logging.ERROR)


def kind(word):
    """The tag to learn: what a word looks like, which the embedding of a word does not show."""
    tests = {"title": str.istitle, "upper": str.isupper, "lower": str.islower, "digit": str.isdigit}
    return next((name for name, holds in tests.items() if holds(word)), "other")


def sentences(count=240, length=24):
    words = " ".join(topics.values()).split()
    for n in range(count):
        sentence = Sentence(words[n * length : (n + 1) * length], use_tokenizer=False)
        for token in sentence:
            token.add_label("kind", kind(token.text))
        yield sentence


def train(prepare):
    flair.set_seed(1)
    made = list(sentences())
    parts = made[:200], made[200:220], made[220:]
    corpus = Corpus(*(FlairDatapointDataset(part) for part in parts))
    tagger = SequenceTagger(
        embeddings=OneHotEmbeddings.from_corpus(corpus, embedding_length=100),
        tag_dictionary=corpus.make_label_dictionary("kind", add_unk=False),
        tag_type="kind", hidden_size=256, rnn_layers=1,
    )  # fmt: skip
    prepare(tagger)
    losses, forward_loss = [], tagger.forward_loss

    def noted(batch):
        loss, count = forward_loss(batch)
        losses.append(loss.item() / count)
        return loss, count

    tagger.forward_loss = noted
    with tempfile.TemporaryDirectory() as folder:
        ModelTrainer(tagger, corpus).train(
            folder, learning_rate=0.1, mini_batch_size=16, max_epochs=2, train_with_dev=True,
            save_final_model=False, monitor_test=False, create_file_logs=False,
            create_loss_file=False,
        )  # fmt: skip
    return losses
