"""What recurrent networks are for: a model that learns something, one file each, on real data.

A file has the data, the model, how it is trained, and what is shown: to be read, and to be copied.
``python -m fastrnn list`` names them, ``python -m fastrnn NAME`` runs one.
"""

ENTRIES = {  # what each is, in a line
    "text": "a language model, letter by letter, beside bz2 and xz",
    "simple": "PyTorch's tutorial SimpleRNN, stepped by hand and by fastrnn.scan",
    "gradients": "vanishing and exploding gradients: seen, and treated",
    "memory": "how far back can it remember? The adding and the copying problem",
    "sentiment": "does a critic like the film? A bidirectional LSTM over sentences",
    "forecast": "what comes next? Sunspots, traffic, electricity",
    "speech": "spoken digits in a row, by CTC; and which of nine men says a vowel",
    "pronounce": "words to phones, sequence to sequence with attention",
    "translate": "English to German, with attention and a beam search",
    "handwriting": "a CNN sees letters, an LSTM reads words; words never seen, too",
    "video": "moving digits, a CNN and a GRU: how many, and which way?",
}
