"""Sentences in two languages, and the pieces of words that they are written in."""

import io

from .data import Missing, library_of, lines_of


def pairs_of(folder, part):
    """The English sentences of a part, and the German ones. Raises Missing."""
    found = [lines_of(folder / f"{part}.{language}") for language in ("en", "de")]
    if len(found[0]) != len(found[1]) or not all(map(any, found)):
        counts = " and ".join(f"{len(lines):,}" for lines in found)
        raise Missing(f"{folder / part}.*: {counts} lines are no pairs of sentences")
    return found


def learn_pieces(lines, most):
    """What makes numbers of a sentence, and a sentence of numbers, by at most so many pieces.

    sentencepiece gives number 1 to what begins a sentence, and 2 to what ends it.
    """
    learner, model, lines = library_of("sentencepiece"), io.BytesIO(), iter(lines)
    options = {"model_type": "bpe", "vocab_size": most, "hard_vocab_limit": False}
    options |= {"sentence_iterator": lines, "model_writer": model, "minloglevel": 2}
    learner.SentencePieceTrainer.train(character_coverage=1.0, **options)
    return learner.SentencePieceProcessor(model_proto=model.getvalue())
