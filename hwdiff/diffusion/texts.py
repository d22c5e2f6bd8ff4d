"""Texts that are often written: those of the paper's figures, trials of a style, and a page of all kinds."""

PAPER_TEXTS = (  # Fig. 11 and Fig. 14
    "the quick brown fox jumps",
    "Samples from a diffusion model",
    "night bring only a disturbed tossing",
    "here in the same words in",
)
STYLE_TEXT = "the quick brown fox jumps"
TRIAL_TEXTS = (
    STYLE_TEXT,
    "pack my box with five jugs",
    "Handwriting of the model",
    "we saw 3 of them, in May.",
    "next week I jog by the lake",
)
PAGE_TEXTS = (
    *PAPER_TEXTS,
    "pack my box with five dozen jugs",
    "Sphinx of black quartz, judge my vow",
    "How quickly daft jumping zebras vex",
    "1234567890",
    "on 3 May 1987, at 6.45 sharp",
    'Who said "no"? I did, and why not!',
    "a well-kept rose-garden, isn't it?",
    "THE UNITED NATIONS",
    "Anna Bell Carl Dora Eric",
    "yes",
    "to be",
    "a line that is nearly as long as one may be",
)
